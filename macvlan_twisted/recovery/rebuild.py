"""
``--recover``: rebuild the state from the engine and the kernel, before anything else starts.

Sound state stays and is completed. Damaged state is moved aside, and a new one created.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from secrets import token_hex

from attrs import evolve, field, frozen
from twisted.logger import Logger

from ..config import Config
from ..driver.models import Network
from ..engine.blocking_client import BlockingEngineClient, FoundNetwork, Inspection, inspect_networks
from ..engine.interfaces import EngineError, EngineUnavailable
from ..errors import RequestRefused, StartupError
from ..netlink.kernel import Kernel, LinkFacts
from ..state.damage import DamageRecovery
from ..state.database import DATABASE_NAME, Database
from ..state.generation import RuntimeGeneration
from ..state.sqlite import StateIdentity, drawn_group, identity_of
from .link_evidence import host_links_of, instances_of, made_links_of
from .networks import host_addresses, missing_links, rebuilt_endpoint, rebuilt_lease, rebuilt_network
from .pools import add_pools
from .snapshot import Snapshot

_log = Logger(namespace="macvlan_twisted.recovery")


@frozen
class RebuildResult:
    """The rebuilt state, and what to report about it."""

    snapshot: Snapshot
    missing: list[tuple[str, str]] = field(factory=list)
    """What cannot be rebuilt, and why."""
    leases: int = 0


def ask_engine(config: Config) -> Inspection:
    """
    :raises StartupError: the engine does not answer.
    """
    if not config.docker_host:
        raise StartupError(
            "--recover needs the engine, but --docker-host is none: set --docker-host to its socket"
        )
    engine = BlockingEngineClient(config.docker_host)
    try:
        return inspect_networks(engine, config.plugin_name)
    except EngineUnavailable as failure:
        raise StartupError(
            f"--recover needs the engine, but none answers on {config.docker_host} ({failure}): start "
            "Docker first, or set --docker-host to its socket"
        ) from failure
    except EngineError as failure:
        raise StartupError(
            f"--recover needs the engine, but the engine refused the request ({failure}): check Docker, then start the plugin again"
        ) from failure


def recover_state(
    config: Config,
    kernel: Kernel,
    directory: Path,
    outside: RuntimeGeneration,
    ask: Callable[[Config], Inspection] = ask_engine,
    wall_time: Callable[[], float] = time.time,
) -> Database:
    """
    Complete or rebuild the state in *directory*. Blocks.

    :param outside: the runtime note of the state's generation.
    :param ask: inspects the engine.
    :param wall_time: in seconds.
    :raises StartupError: the engine does not answer; nothing was changed.
    :raises StateError: the disk refuses.
    """
    inspection = ask(config)
    links = kernel.links()
    with DamageRecovery(directory, outside, wall_time) as recovering:
        opened, damage = recovering.opened(Snapshot.of)
        if opened is None:
            identity, before = _previous_identity(links, outside), Snapshot()
        else:
            identity, before = identity_of(opened[0]), opened[1]
        try:
            rebuilt = rebuild(before, inspection, config, kernel, links, identity.instance, wall_time())
        except BaseException:
            if opened is not None:
                opened[0].close()
            raise
        changes = rebuilt.snapshot.changes_since(before)
        aside: Path | None = None
        if opened is None:
            aside, database = recovering.begun_anew(identity, changes)
        else:
            database = opened[0]
            recovering.complete(database, changes)
    _log_result(before, rebuilt, damage, aside)
    return database


def _previous_identity(links: Sequence[LinkFacts], outside: RuntimeGeneration) -> StateIdentity:
    """The identity of the links on this host, so that they stay ours; a new one if there are none."""
    instances = instances_of(links)
    witnessed = outside.of_directory()
    if witnessed is not None and witnessed.instance in instances:
        return StateIdentity(witnessed.instance, instances[witnessed.instance])
    for instance in list(instances):
        other = outside.of_instance(instance)
        if other is not None and other is not witnessed and Path(other.directory, DATABASE_NAME).exists():
            del instances[instance]  # its state exists elsewhere
    if len(instances) == 1:
        ((instance, group),) = instances.items()
        return StateIdentity(instance, group)
    if instances:
        # Cause: --recover found links of several earlier state directories, each an instance of its own. Remedy: if
        # the links are not needed, remove them. The command ``purge`` needs the plugin stopped. It also removes this
        # instance's own links and state.
        _log.warn(
            "links of several instances: found on this host ({instances}) and not removed, because it is not known "
            "which instance the lost state belonged to; if the links are not needed, stop the plugin and run: macvlan-twisted "
            "purge --every-instance (also removes this instance's own links and state)",
            instances=", ".join(sorted(instances)),
        )
    return StateIdentity.drawn() if witnessed is None else StateIdentity(witnessed.instance, drawn_group())


def rebuild(
    before: Snapshot,
    inspection: Inspection,
    config: Config,
    kernel: Kernel,
    links: Sequence[LinkFacts],
    instance: str,
    now: float,
) -> RebuildResult:
    """
    Add to *before* what the engine and the kernel know.

    :param instance: the identity of our links.
    :param now: wall-clock time in seconds.
    """
    snapshot = before.copy()
    missing: list[tuple[str, str]] = []
    for name, made in made_links_of(instance, links).items():
        snapshot.made_links.setdefault(name, made)
    for parent, link in host_links_of(instance, links, kernel).items():
        snapshot.host_links.setdefault(parent, link)
    seen: dict[str, int] = {}
    nonce = token_hex(4)
    leases = 0
    for found in inspection.networks:
        network: Network | None = None
        if found.driver == config.plugin_name:
            try:
                network = _add_network(snapshot, found, config, links, inspection.picks_gateways, missing)
            except RequestRefused as refused:
                missing.append((f"network {found.name}", str(refused)))
        if found.ipam_driver == config.plugin_name:
            missing += add_pools(snapshot, found, network, config, nonce, seen)
        if network is not None:
            leases += _add_endpoints(snapshot, found, network, kernel, links, now)
    return RebuildResult(snapshot, missing, leases)


def _add_network(
    snapshot: Snapshot,
    found: FoundNetwork,
    config: Config,
    links: Sequence[LinkFacts],
    picks_gateways: bool,
    missing: list[tuple[str, str]],
) -> Network:
    network = snapshot.networks.get(found.network_id)
    if network is not None and network.is_made:
        return network
    network = rebuilt_network(found, config, links, picks_gateways)
    if network.host_access:
        host_link = snapshot.host_links.get(network.parent)
        present = () if host_link is None else tuple(each.ip for each in host_link.addresses)
        network = evolve(network, host_addresses=host_addresses(network, found, present))
        if not network.host_addresses:
            missing.append((f"host address of network {found.name}", "neither the engine nor a link has it"))
    for made in missing_links(network, links):
        snapshot.made_links.setdefault(made.name, made)
    snapshot.networks[network.network_id] = network
    return network


def _add_endpoints(
    snapshot: Snapshot,
    found: FoundNetwork,
    network: Network,
    kernel: Kernel,
    links: Sequence[LinkFacts],
    now: float,
) -> int:
    """:return: the number of leases that were added."""
    leases = 0
    is_present = any(link.name == network.parent for link in links)
    parent_addresses = [each.ip for each in kernel.addresses_of(network.parent)] if is_present else []
    pools = [pool for pool in snapshot.pools.values() if pool.dhcp and pool.lan_parent == network.parent]
    for each in found.endpoints:
        if each.endpoint_id in snapshot.endpoints:
            continue
        endpoint = rebuilt_endpoint(each, network, parent_addresses)
        snapshot.endpoints[endpoint.endpoint_id] = endpoint
        pool = next(
            (each for each in pools if any(address in each.prefix for address in endpoint.addresses)), None
        )
        dhcp_options = network if network.dhcp else pool
        lease = None if dhcp_options is None else rebuilt_lease(endpoint, each, network, dhcp_options, now)
        if lease is not None and lease.key not in snapshot.leases:
            snapshot.leases[lease.key] = lease
            leases += 1
    return leases


def _log_result(before: Snapshot, rebuilt: RebuildResult, damage: str, aside: Path | None) -> None:
    snapshot = rebuilt.snapshot
    if aside is not None:
        # Cause: --recover replaces a damaged or lost state. Remedy: delete the moved files when everything
        # runs.
        _log.warn(
            "state: not usable, its files were moved to {directory} ({damage})",
            damage=damage,
            directory=str(aside),
        )
    added = {
        "networks": len(snapshot.networks) - len(before.networks),
        "endpoints": len(snapshot.endpoints) - len(before.endpoints),
        "pools": len(snapshot.pools) - len(before.pools),
        "addresses": len(snapshot.allocations) - len(before.allocations),
        "leases": rebuilt.leases,
        "links": len(snapshot.made_links)
        + len(snapshot.host_links)
        - len(before.made_links)
        - len(before.host_links),
    }
    # Cause: the plugin was started with --recover. What is not recovered is learnt again: the LAN is probed, a stopped
    # container may get another address, and leases are renewed. Remedy: start without --recover from now on.
    _log.warn(
        "state: rebuilt from the engine and the kernel ({counts}); not recovered: which addresses are in use by other hosts or must "
        "not be reused yet, addresses and MACs of stopped containers, details of leases; start without --recover from "
        "now on",
        counts=", ".join(f"{number} {name}" for name, number in added.items()),
    )
    for each, reason in rebuilt.missing:
        # Cause: neither the engine nor the kernel has all details of this object. Remedy: remove the network in Docker
        # and create it again.
        _log.error("state: cannot rebuild {object} ({reason})", object=each, reason=reason)
