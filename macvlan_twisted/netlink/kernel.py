"""The interface to the kernel: plain, blocking functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from attrs import frozen

from ..addresses import IPAddress, IPInterface, IPNetwork

ETH_P_8021Q = 0x8100


class Marked(Protocol):
    """A link with what identifies its owner."""

    @property
    def name(self) -> str: ...

    @property
    def group(self) -> int: ...

    @property
    def alias(self) -> str: ...


@frozen
class LinkFacts:
    """A link in the host's namespace."""

    index: int
    name: str
    kind: str
    mac: str
    mtu: int
    up: bool
    group: int = 0
    alias: str = ""
    lower_index: int = 0
    vlan_id: int | None = None
    vlan_protocol: int = 0
    """Of a VLAN: :data:`ETH_P_8021Q`, or 0x88a8 for a service VLAN of 802.1ad."""
    is_wireless: bool = False
    bridge: str | None = None
    """The bridge that the link is a port of."""
    driver: str = ""
    """The kernel's driver of a NIC, such as ``e1000e`` or ``virtio_net``."""


@frozen
class NetnsLink:
    """A link in another network namespace, such as a container's."""

    name: str
    mac: str
    alias: str
    up: bool


@frozen
class MacvlanLink:
    """A macvlan link to be made, or as it is read back from the kernel."""

    name: str
    parent: str
    mode: str
    group: int = 0
    alias: str = ""
    mtu: int | None = None
    mac: str | None = None
    broadcast_queue_length: int | None = None
    broadcast_limit: int | None = None
    nopromisc: bool = False
    source_macs: tuple[str, ...] = ()


@frozen
class DefaultRoute:
    """A default route of the host: its link and its router."""

    link: str
    gateway: IPAddress | None
    metric: int


@frozen
class HostRoute:
    """A route of the host to one address on a link."""

    destination: IPAddress
    link: str
    source: IPAddress | None
    """The preferred source address."""
    protocol: int
    """*proto* of ``ip route``: who made the route."""


@frozen
class Readdress:
    """The change of a container's link in its sandbox when the container gets another IPv4 address."""

    mac: str
    """Identifies the link."""
    leaving: tuple[IPAddress, ...]
    """The addresses to remove; they may be gone already."""
    arriving: IPInterface
    routers_before: tuple[IPAddress, ...] = ()
    """A default route by one of them changes; any other one stays."""
    router: IPAddress | None = None
    """The new router; ``None`` for no default route."""
    routes: tuple[tuple[IPNetwork, IPAddress | None], ...] = ()
    """Destinations that need a route, each with the next hop; ``None`` for one on the link itself."""


class Kernel(Protocol):
    """
    Links in the namespace of this process. Every function blocks, from microseconds to an RCU grace period of 16 ms or
    more, and so runs on a thread. Several threads may call it at once.

    :raises LinkError: any of them, when the kernel refuses.
    """

    def prepare(self) -> None:
        """Do what the first change would have to do: import a library, for 0.2 s."""

    def find(self, name: str) -> LinkFacts | None:
        """The link *name*, or ``None``."""

    def exists(self, name: str) -> bool:
        """
        Whether there is a link *name*; takes microseconds and no lock, so it may run in the reactor.

        :raises LinkError: no file descriptor is left.
        """

    def names(self) -> list[str]:
        """The names of all links. It takes microseconds a link."""

    def links_elsewhere(self) -> list[NetnsLink]:
        """The links in all namespaces to which links of this one were moved. It takes 0.1 ms a namespace."""

    def links(self, complete: bool = False) -> list[LinkFacts]:
        """
        All links. It takes 15 microseconds a link.

        A kernel before 6.9 may leave one out while others are deleted. The list is requested again then, a few times.

        :param complete: fail with EINTR if no list was complete; else the last one is returned.
        """

    def add_macvlan(self, port: MacvlanLink, prove_mac_free: bool = False) -> None:
        """
        Make a macvlan link, which is down, with one message, and set its alias with a second one. A failure leaves no
        link.

        :param prove_mac_free: bring it up for a moment, which fails with EADDRINUSE if another link on the parent, in any
            namespace, has its MAC.
        """

    def read_macvlan(self, name: str) -> MacvlanLink | None:
        """The result of :meth:`add_macvlan`: the kernel and pyroute2 ignore attributes that they do not know."""

    def add_vlan(self, name: str, lower: str, vlan_id: int, group: int, alias: str) -> None:
        """Make an 802.1Q link, and bring it up, with IPv6 disabled for the host."""

    def add_dummy(self, name: str, group: int, alias: str, mtu: int | None = None) -> None:
        """Make a dummy link, and bring it up, with IPv6 disabled for the host."""

    def set_up(self, name: str) -> None: ...

    def set_group(self, name: str, group: int) -> bool:
        """Move a link to *group* and bring it down; ``False`` if there is no such link."""

    def delete(self, name: str) -> bool:
        """Remove a link and wait for the grace period; ``False`` if there is no such link."""

    def members_of_group(self, group: int) -> Sequence[Marked]:
        """
        The links of *group*. It takes 3 microseconds for each link of the host, of whatever group. Fails with EINTR as
        :meth:`links` does.
        """

    def delete_group(self, group: int) -> None:
        """Delete every link of *group* within one grace period, also those of others."""

    def close(self) -> None:
        """Close the netlink sockets of the calling thread; its next call opens them again."""

    def default_routes(self) -> list[DefaultRoute]:
        """Default routes of both families, the preferred ones first."""

    def addresses_of(self, name: str) -> list[IPInterface]:
        """The host's addresses on a link."""

    def host_addresses(self) -> dict[IPAddress, str]:
        """All addresses of the host, each with the name of its link."""

    def configure(self, name: str, values: Mapping[str, str]) -> None:
        """
        Write sysctls of a link, such as ``ipv4/arp_ignore``. Those of IPv6 are ignored where the kernel has no IPv6.
        """

    def add_address(self, name: str, address: IPInterface) -> None:
        """Add an address of the host to a link, without IPv6 duplicate address detection. Succeeds if it is there."""

    def delete_address(self, name: str, address: IPInterface) -> bool:
        """``False`` if it is not there."""

    def add_host_route(self, route: HostRoute) -> None:
        """
        Add a route. Succeeds if it is there; replaces one with the same destination, link and protocol that has another
        source. Where another program has a route to the same destination, it fails with EEXIST.
        """

    def delete_host_route(self, route: HostRoute) -> bool:
        """``False`` if it is not there."""

    def host_routes(self, link: str, protocol: int) -> list[HostRoute]:
        """The routes of *protocol* to single addresses by *link*."""


class Sandboxes(Protocol):
    """
    Containers' network namespaces, each identified by the path of a file. As in :class:`Kernel`, these functions block and
    raise :class:`~macvlan_twisted.errors.LinkError`.
    """

    def lacking(self) -> str:
        """The privilege that this process lacks to change a sandbox, with the remedy; empty if none."""

    def is_there(self, path: str) -> bool:
        """Whether *path* is a network namespace in this process's view."""

    def move(self, path: str, move: Readdress) -> tuple[str, ...]:
        """
        Change the address of a link in the sandbox, and the router of its default route. Parts that are done already are
        skipped. A failure restores the former state.

        :return: the routes of the link that are lost, since none of its addresses reaches their gateways any more.
        """
