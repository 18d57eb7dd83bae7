"""The invariants: state is read from the SQLite file, the rest from the kernel."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from macvlan_twisted.ipam.pool import id_without_nonce
from macvlan_twisted.ipam.requests import Purpose
from macvlan_twisted.lan.host_routes import ROUTE_PROTOCOL
from macvlan_twisted.link_names import instance_prefix
from macvlan_twisted.netlink.links import GROUPS
from tests.lab.state_copy import copied
from tests.torture.docker import Docker
from tests.torture.world import World


@dataclass
class State:
    """The rows on disk."""

    instance: str = ""
    link_group: int = 0
    networks: dict[str, Any] = field(default_factory=dict)
    endpoints: dict[str, Any] = field(default_factory=dict)
    made_links: dict[str, Any] = field(default_factory=dict)
    host_links: dict[str, Any] = field(default_factory=dict)
    leases: dict[str, Any] = field(default_factory=dict)
    pools: dict[str, Any] = field(default_factory=dict)
    addresses: dict[tuple[str, str], str] = field(default_factory=dict)


def read_state(directory: Path) -> State:
    """Read a copy of the file, which the program may have open."""
    state = State()
    with copied(directory) as database:
        if database is None:
            return state
        tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "leases" not in tables:
            return state
        identity = dict(database.execute("SELECT name, value FROM identity").fetchall())
        state.instance, state.link_group = identity.get("instance", ""), int(identity.get("link_group", 0))
        for table in ("networks", "endpoints", "made_links", "host_links", "leases", "pools"):
            rows = database.execute(f"SELECT id, document FROM {table}").fetchall()
            setattr(state, table, {key: json.loads(text) for key, text in rows})
        rows = database.execute("SELECT pool_id, address, purpose FROM addresses").fetchall()
        state.addresses = {(pool, address): purpose for pool, address, purpose in rows}
        return state


def _state_of(world: World, docker: Docker) -> State:
    """
    The rows on disk. A pool that was rebuilt has a PoolID that the engine does not know: it is named as the engine does
    that calls it by another one which says the same.
    """
    state = read_state(world.state)
    if docker.is_rebuilt:
        lost = [each for each in docker.view.pools if each not in state.pools]
        of_engine = {}
        for new in state.pools:
            old = next((each for each in lost if id_without_nonce(each) == id_without_nonce(new)), None)
            if new not in docker.view.pools and old is not None:
                lost.remove(old)
                of_engine[new] = old
        state.pools = {of_engine.get(key, key): row for key, row in state.pools.items()}
        state.addresses = {
            (of_engine.get(pool, pool), address): purpose
            for (pool, address), purpose in state.addresses.items()
        }
    return state


@dataclass
class Findings:
    """Violated invariants."""

    lost: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.lost or self.leaked)


def compare(world: World, docker: Docker) -> Findings:
    """Compare the engine's view, state and kernel at one moment."""
    found = Findings()
    state = _state_of(world, docker)
    view = docker.view
    excused = view.excused
    excused_endpoints = {each[1] for each in excused if each[0] == "endpoint"}

    def missing(what: str, wanted: set[Any], there: set[Any]) -> None:
        found.lost.extend(
            f"{what} {each} was answered, and is not in state" for each in sorted(wanted - there)
        )

    missing("pool", set(view.pools), set(state.pools))
    missing("network", set(view.networks), set(state.networks))
    missing("endpoint", set(view.containers), set(state.endpoints))
    taken = {(pool, each) for pool, addresses in view.pools.items() for each in addresses}
    missing("address", taken, set(state.addresses))

    for kind, *key in view.gone:
        there = {
            "pool": lambda k: k[0] in state.pools,
            "network": lambda k: k[0] in state.networks,
            "endpoint": lambda k: k[0] in state.endpoints,
            "address": lambda k: tuple(k) in state.addresses,
        }[kind](key)
        if there:
            found.lost.append(
                f"{kind} {' '.join(key)} was removed, that was answered, and it is still in state"
            )

    unknown = set(state.pools) - set(view.pools) - {each[1] for each in excused if each[0] == "pool"}
    if len(unknown) > (("a pool",) in excused):
        found.leaked.append(f"pools {sorted(unknown)} are nobody's")
    for network in set(state.networks) - set(view.networks):
        if ("network", network) not in excused:
            found.leaked.append(f"network {network} is nobody's")
        elif not state.networks[network].get("is_made", True):
            found.leaked.append(f"network {network} is half made")
    for endpoint in set(state.endpoints) - set(view.containers) - excused_endpoints:
        found.leaked.append(f"endpoint {endpoint} is nobody's")
    _addresses(state, docker, unknown, found)
    _kernel(world, docker, state, excused_endpoints, found)
    return found


def _addresses(state: State, docker: Docker, unknown_pools: set[str], found: Findings) -> None:
    view = docker.view
    hosts = {
        address
        for network in state.networks.values()
        if network.get("host_access")
        for address in network.get("host_addresses", ())
    }
    for pool, address in state.addresses:
        if pool not in state.pools:
            found.leaked.append(f"address {address} is in pool {pool}, which is not there")
        named = {("address", pool, address), ("address", pool, ""), ("pool", pool)}
        if pool in unknown_pools or named & view.excused:
            continue
        if address not in view.pools.get(pool, ()) and address not in hosts:
            found.leaked.append(f"address {address} of pool {pool} has no owner")


def _kernel(world: World, docker: Docker, state: State, excused: set[str], found: Findings) -> None:
    links, boxed = world.host.links(), world.boxed()
    groups = range(state.link_group, state.link_group + GROUPS)
    ours = {
        name
        for name, link in links.items()
        if (link.get_attr("IFLA_IFALIAS") or "").startswith(instance_prefix(state.instance))
        or (link.get_attr("IFLA_GROUP") or 0) in groups
    }
    wanted = {each["link"] for each in state.endpoints.values()} | set(state.made_links)
    wanted |= {each["name"] for each in state.host_links.values()}
    found.leaked.extend(f"link {each} belongs to nothing in state" for each in sorted(ours - wanted))
    for key, endpoint in state.endpoints.items():
        if key not in excused and endpoint["link"] not in ours | boxed:
            found.lost.append(f"endpoint {key} has no link {endpoint['link']}")
    needed = {
        each["name"] for each in state.host_links.values() if each.get("addresses")
    }  # others: when needed
    for name in {*state.made_links, *needed} - ours:
        found.lost.append(f"link {name} is in state, and not there")
    for name in ours:
        if not (links[name].get_attr("IFLA_IFALIAS") or ""):
            found.lost.append(f"link {name} has no alias that marks it as ours")
    _host_access(world, docker, state, links, found)


def _host_access(world: World, docker: Docker, state: State, links: dict[str, Any], found: Findings) -> None:
    indices = {link["index"]: name for name, link in links.items()}
    present = world.host.addresses()
    for link in state.host_links.values():
        on_it = {each for index, each in present if indices.get(index) == link["name"]}
        on_it = {each for each in on_it if not each.startswith("fe80:")}
        if link["name"] in links and on_it != set(link.get("addresses", ())):
            found.lost.append(f"link {link['name']} has {sorted(on_it)}, and not {link.get('addresses')}")
    routed = {
        destination for protocol, _, destination, _, _ in world.host.routes() if protocol == ROUTE_PROTOCOL
    }
    accessible = {key for key, each in state.networks.items() if each.get("host_access")}
    of_all = {
        str(endpoint[member]).partition("/")[0]
        for endpoint in state.endpoints.values()
        for member in ("address", "address_v6")
        if endpoint.get(member) and endpoint["network_id"] in accessible
    }
    found.leaked.extend(f"a route leads to {each}, where nobody is" for each in sorted(routed - of_all))
    for container in docker.view.containers.values():
        if container.joined and container.net.id in accessible:
            for _, address in container.addresses:
                versions = {":" in each for each in state.networks[container.net.id]["host_addresses"]}
                if address not in routed and (":" in address) in versions:
                    found.lost.append(f"the host has no route to {address}")


def left_behind(world: World, docker: Docker) -> list[str]:
    """The kinds of objects that exist although no engine knows them: their calls broke, or never came."""
    state, view = _state_of(world, docker), docker.view
    kinds: list[tuple[str, set[Any]]] = [
        ("networks", set(state.networks) - set(view.networks)),
        ("endpoints", set(state.endpoints) - set(view.containers)),
        ("pools", set(state.pools) - set(view.pools)),
    ]
    taken = {
        (pool, address)
        for (pool, address), purpose in state.addresses.items()
        if pool in view.pools and purpose != "host" and address not in view.pools[pool]
    }
    return [kind for kind, each in (*kinds, ("addresses", taken)) for _ in each]


def uncollected(world: World, docker: Docker) -> Findings:
    """What the program has yet to remove by itself, once it compares kernel and state, with no engine that it could ask.

    Networks and pools that an engine forgot stay, and what was handed out from a pool that never got a network: no
    kernel proves that nobody wants them. An endpoint in passthru stays, too: it has no MAC that could be proved free.
    """
    found = Findings()
    state, view = _state_of(world, docker), docker.view
    kept = {key: row for key, row in state.endpoints.items() if row["mac"] is None}
    in_use = {str(row["address"]).partition("/")[0] for row in kept.values()}
    for endpoint in sorted(set(state.endpoints) - set(view.containers) - set(kept)):
        found.leaked.append(f"endpoint {endpoint} is not collected")
    for (pool, address), purpose in sorted(state.addresses.items()):
        is_kept = address in in_use or not (state.pools.get(pool) or {}).get("network_id")
        if purpose == Purpose.ENDPOINT.value and address not in view.pools.get(pool, ()) and not is_kept:
            found.leaked.append(f"address {address} of pool {pool} is not collected")
    macs = {each.mac for each in view.containers.values()}
    for key, lease in sorted(state.leases.items()):
        if lease["facts"]["mac"] not in macs:
            found.leaked.append(f"lease {key} is not collected")
    theirs = {each.link for each in view.containers.values()} | {row["link"] for row in kept.values()}
    hosts = {
        name
        for name, link in world.host.links().items()
        if (link.get_attr("IFLA_IFALIAS") or "").startswith(instance_prefix(state.instance))
    }
    for name in sorted((hosts | world.boxed()) - theirs):
        if name.startswith(("mvt", "mvx")):
            found.leaked.append(f"link {name} is not collected")
    return found


SETTLED = 120.0
"""Seconds that background work may take. Usually it takes none."""


def settle(check: Callable[[], Findings], seconds: float = SETTLED) -> Findings:
    """Check until all invariants hold, or time is up."""
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.02)


def foreign(world: World) -> dict[str, Any]:
    """Return the host's links, addresses and routes that are not the program's."""
    links = world.host.links()
    theirs = {
        name: link
        for name, link in links.items()
        if not (link.get_attr("IFLA_IFALIAS") or "").startswith("macvlan-twisted/")
    }
    indices = {link["index"]: name for name, link in theirs.items()}
    facts = {
        name: (
            link["index"],
            link.get_attr("IFLA_ADDRESS"),
            link.get_attr("IFLA_MTU"),
            link.get_attr("IFLA_GROUP"),
            link.get_attr("IFLA_IFALIAS"),
            link.get_attr("IFLA_MASTER"),
            link["flags"] & 1,
        )
        for name, link in theirs.items()
    }
    return {
        **{f"link {name}": each for name, each in facts.items()},
        **{
            f"address {each} of {indices[index]}": True
            for index, each in world.host.addresses()
            if index in indices
        },
        **{
            f"route {destination}/{length} by {indices.get(index, '?')} {gateway} proto {protocol}": True
            for protocol, index, destination, length, gateway in world.host.routes()
            if index in indices
        },
    }
