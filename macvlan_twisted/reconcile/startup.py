"""At start: make kernel and state agree, however the earlier process ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.logger import Logger

from ..addresses import IPAddress
from ..dhcp.store import LeaseRecord
from ..driver.networks import Networks
from ..driver.parents import Parents
from ..driver.registry import Registry
from ..errors import MacvlanError
from ..lan.host_routes import HostRoutes
from ..lan.packet_sockets import PacketSockets
from ..netlink.kernel import LinkFacts
from ..netlink.links import Links

_log = Logger(namespace="macvlan_twisted.driver")


async def reconcile(
    present: Iterable[LinkFacts],
    registry: Registry,
    parents: Parents,
    networks: Networks,
    links: Links,
    sockets: PacketSockets,
    host_routes: HostRoutes,
) -> None:
    """
    Remove what was retired or half made, links of ours without an endpoint, and VLANs without a network. Make VLANs and
    dummy links again that a reboot has removed.

    A link of ours without an alias was made just before a kill. The call that made it was not answered: what it was made
    for is not there, or makes it anew.

    Links inside containers are out of sight here, so an endpoint without a link stays: its container may be alive.

    :param present: all links in the host's namespace.
    """
    ours = [link for link in present if links.is_ours(link)]
    retired = [link for link in ours if links.is_retired(link)]
    gone = {link.name for link in retired}
    unmarked = {link.name for link in ours if not link.alias} - gone
    for endpoint in list(registry.endpoints.values()):
        if endpoint.link in gone | unmarked:
            registry.remove_endpoint(endpoint.endpoint_id)
            await registry.erase_endpoint(endpoint.endpoint_id)
    links.adopt_retired(retired)
    kept = {endpoint.link for endpoint in registry.endpoints.values()} | set(parents.made) | gone
    kept |= {link.name for link in registry.host_links.values()}
    kept -= unmarked
    for link in ours:
        if link.name not in kept:
            await links.retire(link.name)
            _log.info("link {link}: removed, left by an earlier run", link=link.name)
    await links.deletions_finished()
    await networks.undo_half_made()
    for parent in sorted({network.parent for network in registry.networks.values()}):
        try:
            await parents.repair(parent, bring_up=True)
        except MacvlanError as error:
            # Cause: the kernel refused a link or a socket on the parent. Remedy: see the reason in the line.
            _log.warn(
                "parent {parent}: cannot be restored yet, the plugin tries again within a minute ({reason})",
                parent=parent,
                reason=str(error),
            )
    await host_routes.restore(
        {
            endpoint.endpoint_id: (
                endpoint.parent,
                endpoint.addresses,
                registry.networks[endpoint.network_id].host_addresses,
            )
            for endpoint in registry.endpoints.values()
            if endpoint.network_id in registry.networks
        }
    )
    await sockets.drop_unused()
    await parents.drop_orphans()


def leases_in_use(
    leases: Iterable[LeaseRecord], registry: Registry, is_taken: Callable[[str, IPAddress], bool]
) -> set[str]:
    """
    The keys of leases that belong to an endpoint or to an allocated address. The others are released at start.

    :param is_taken: whether our address management has allocated an address on a parent.
    """
    macs = {(endpoint.parent, endpoint.mac) for endpoint in registry.endpoints.values()}
    addresses = {
        (endpoint.parent, address)
        for endpoint in registry.endpoints.values()
        for address in endpoint.known_addresses
    }
    return {
        each.key
        for each in leases
        if (each.parent, each.binding.mac) in macs
        or (each.parent, each.reported_address) in addresses
        or is_taken(each.parent, each.reported_address)
    }
