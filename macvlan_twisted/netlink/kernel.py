"""What we ask of the kernel: a small interface of plain, blocking functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from attrs import frozen

from ..addresses import IPAddress, IPInterface, IPNetwork

ETH_P_8021Q = 0x8100


class Marked(Protocol):
    """What tells whose a link is."""

    @property
    def name(self) -> str: ...

    @property
    def group(self) -> int: ...

    @property
    def alias(self) -> str: ...


@frozen
class LinkFacts:
    """What the kernel says of one link in the host's namespace."""

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
    """A macvlan link to be made; also what the kernel is read back as, once a network."""

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
    """A default route of the host: which link it leaves by, and the router."""

    link: str
    gateway: IPAddress | None
    metric: int


@frozen
class HostRoute:
    """A route of the host to one address on a link."""

    destination: IPAddress
    link: str
    source: IPAddress | None
    """The host's address that talks to it."""
    protocol: int
    """Who made it (``ip route``: *proto*)."""


@frozen
class Readdress:
    """What is to become of a container's link in its sandbox, when the container gets another IPv4 address."""

    mac: str
    """Of the link, which is known by it."""
    leaving: tuple[IPAddress, ...]
    """The addresses that it is to have no more; they may have gone already."""
    arriving: IPInterface
    routers_before: tuple[IPAddress, ...] = ()
    """A default route to one of them is to be changed; any other one stays."""
    router: IPAddress | None = None
    """Where it is to lead; ``None``: nowhere."""
    routes: tuple[tuple[IPNetwork, IPAddress | None], ...] = ()
    """Destinations that it needs routes to, each with the next hop; without one it is on the link itself."""


class Kernel(Protocol):
    """
    Links in the namespace of this process. Every function blocks, for microseconds up to an RCU grace
    period of 16 ms or more, and so runs on a thread; it may be called from several threads at once.

    All of them raise :class:`~macvlan_twisted.errors.LinkError` when the kernel refuses.
    """

    def find(self, name: str) -> LinkFacts | None:
        """The link *name*, or ``None``."""

    def exists(self, name: str) -> bool:
        """
        Whether there is a link *name*; takes microseconds and no lock, so it may run in the reactor.

        :raises LinkError: it cannot be found out, as no file descriptor is left.
        """

    def names(self) -> list[str]:
        """The names of all links; costs microseconds a link."""

    def links_elsewhere(self) -> list[NetnsLink]:
        """The links in all other namespaces to which links were moved from this one; costs 0.1 ms a namespace."""

    def links(self) -> list[LinkFacts]:
        """All links; costs 0.2 ms a link, so not for the way of a call."""

    def add_macvlan(self, port: MacvlanLink, prove_mac_free: bool = False) -> None:
        """
        Make a macvlan link, down, in one message, and mark it by its alias in a second one.

        With *prove_mac_free* it is brought up for a moment, which fails with EADDRINUSE if another link on
        the parent, in whatever namespace, has its MAC. A failure leaves no link.
        """

    def read_macvlan(self, name: str) -> MacvlanLink | None:
        """What became of :meth:`add_macvlan`, since the kernel and pyroute2 ignore what they do not know."""

    def add_vlan(self, name: str, lower: str, vlan_id: int, group: int, alias: str) -> None:
        """Make an 802.1Q sub-interface, and bring it up; the host itself takes no IPv6 address there."""

    def add_dummy(self, name: str, group: int, alias: str, mtu: int | None = None) -> None:
        """Make a dummy link, and bring it up; the host itself takes no IPv6 address there."""

    def set_up(self, name: str) -> None: ...

    def set_group(self, name: str, group: int) -> bool:
        """Move a link to *group* and bring it down; ``False`` if there is no such link."""

    def delete(self, name: str) -> bool:
        """Remove a link and wait for the grace period; ``False`` if there is no such link."""

    def members_of_group(self, group: int) -> Sequence[Marked]: ...

    def delete_group(self, group: int) -> None:
        """Remove every link of *group* within one grace period, whoever made it."""

    def close(self) -> None:
        """Give back what the calling thread holds, such as its netlink socket; the next call takes it again."""

    def default_routes(self) -> list[DefaultRoute]:
        """Default routes of both families, the preferred ones first."""

    def addresses_of(self, name: str) -> list[IPInterface]:
        """The addresses that the host itself has on a link."""

    def host_addresses(self) -> dict[IPAddress, str]:
        """All addresses that the host itself has, each with the name of its link."""

    def configure(self, name: str, values: Mapping[str, str]) -> None:
        """
        Write sysctls of a link, such as ``ipv4/arp_ignore``; those of IPv6 are left out where the host has none.
        """

    def add_address(self, name: str, address: IPInterface) -> None:
        """Give the host an address on a link, without IPv6's wait for duplicates; succeeds if it is there."""

    def delete_address(self, name: str, address: IPInterface) -> bool:
        """``False`` if it is not there."""

    def add_host_route(self, route: HostRoute) -> None:
        """
        Make a route; succeeds if it is there, and replaces that of its destination, link and protocol if it has
        another source.

        A route of someone else to the same destination stays, and is refused with EEXIST.
        """

    def delete_host_route(self, route: HostRoute) -> bool:
        """``False`` if it is not there."""

    def host_routes(self, link: str, protocol: int) -> list[HostRoute]:
        """The routes of *protocol* to single addresses by *link*."""


class Sandboxes(Protocol):
    """
    Containers' network namespaces, each known by the path of a file. As those of :class:`Kernel` these functions block,
    and raise :class:`~macvlan_twisted.errors.LinkError`.
    """

    def lacking(self) -> str:
        """What this process lacks to change anything in a sandbox, with the remedy; empty if nothing."""

    def is_there(self, path: str) -> bool:
        """Whether *path* leads to a network namespace, as seen from here."""

    def move(self, path: str, move: Readdress) -> tuple[str, ...]:
        """
        Give a link in the sandbox another address, and its default route another router. What of that is done already
        stays; after a failure all is as it was.

        :return: routes of the link that could not be kept, as they are reached by none of its addresses any more.
        """
