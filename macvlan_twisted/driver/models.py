"""Networks and endpoints, and what follows from their fields alone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from attrs import field, frozen

from ..addresses import IPAddress, IPInterface, IPNetwork
from ..macs import mac_from_ip
from ..netlink.kernel import MacvlanLink
from ..option_values import ConflictDetection, IdentitySource, MacvlanMode


@frozen
class Subnet:
    """One subnet of a network, as the engine's address management decided it."""

    pool: IPNetwork
    gateway: IPAddress | None = None
    auxiliary: Mapping[str, IPAddress] = field(factory=dict)
    managed_here: bool = False
    """Whether this plugin manages the addresses, and has probed them already."""
    null_ipam: bool = False
    """Whether nothing manages the addresses (``--ipam-driver null``)."""


@frozen
class VlanStep:
    """One 802.1Q link between the NIC and the network's parent."""

    link: str
    lower: str
    vlan_id: int


@frozen
class Network:
    """A network as it was created; stored, so a new field needs a default."""

    network_id: str
    parent: str
    mode: MacvlanMode
    subnets: tuple[Subnet, ...] = ()
    mtu: int | None = None
    internal: bool = False
    on_dummy: bool = False
    vlan_steps: tuple[VlanStep, ...] = ()
    broadcast_queue_length: int | None = None
    broadcast_limit: int | None = None
    nopromisc: bool = False
    source_macs: tuple[str, ...] = ()
    allow_parent_mac_change: bool = False
    conflict_detection: ConflictDetection = ConflictDetection.ON
    announce: bool = True
    identity: IdentitySource = IdentitySource.ADDRESS
    dhcp: bool = False
    dhcp_release: bool = True
    dhcp_readdress: bool = False
    dhcp_vendor_class: str = ""
    host_access: bool = False
    host_addresses: tuple[IPAddress, ...] = ()
    """The host's own addresses for this network's containers, one a family; empty until they are chosen."""
    allow_wireless_parent: bool | None = field(default=None, eq=False)
    """Whether the user allows a Wi-Fi interface as parent; ``None``: created before this was stored."""
    engine_id: str = field(default="", eq=False)
    """
    Of the engine that was last seen to list the network (:class:`~macvlan_twisted.reconcile.engine_snapshot.EngineSnapshot`); empty if none was.
    """
    is_made: bool = True
    """Whether its creation was finished. The next start undoes a creation that a kill interrupted."""

    @property
    def vlan_id(self) -> int | None:
        return self.vlan_steps[-1].vlan_id if self.vlan_steps else None

    @property
    def short_id(self) -> str:
        return self.network_id[:12]

    def macvlan_link(self, link: str, group: int, alias: str, mac: str | None) -> MacvlanLink:
        """The link of a container of this network, as the kernel is asked for it."""
        return MacvlanLink(
            name=link,
            parent=self.parent,
            mode=self.mode,
            group=group,
            alias=alias,
            mtu=self.mtu,
            mac=mac,
            broadcast_queue_length=self.broadcast_queue_length,
            broadcast_limit=self.broadcast_limit,
            nopromisc=self.nopromisc,
            source_macs=self.source_macs,
        )

    def subnet_of(self, address: IPAddress) -> Subnet | None:
        return next((each for each in self.subnets if address in each.pool), None)

    def host_address(self, version: int) -> IPAddress | None:
        return next((each for each in self.host_addresses if each.version == version), None)

    def gateway_for(self, address: IPInterface | None) -> IPAddress | None:
        """The gateway of the endpoint's own subnet; that of another subnet would be unreachable."""
        if address is None or self.internal:
            return None
        subnet = self.subnet_of(address.ip)
        return subnet.gateway if subnet is not None else None


@frozen
class Endpoint:
    """An endpoint as it was created; stored, so a new field needs a default."""

    endpoint_id: str
    network_id: str
    link: str
    parent: str
    mac: str | None
    mac_generated: bool
    address: IPInterface | None = None
    address_v6: IPInterface | None = None
    reported_address: IPInterface | None = None
    """The address that the engine shows, if the DHCP server has moved the container to :attr:`address` since."""
    sandbox: str = ""
    """The engine's path of the container's network namespace; stored if we may have to enter it."""
    static_routes: tuple[IPNetwork, ...] = ()
    """Destinations of the routes in the reply to Join: a second route to one in the same sandbox would fail a start."""

    @property
    def short_id(self) -> str:
        return self.endpoint_id[:12]

    @cached_property
    def addresses(self) -> tuple[IPAddress, ...]:
        return tuple(each.ip for each in (self.address, self.address_v6) if each is not None)

    @property
    def has_mac_of_address(self) -> bool:
        """Whether its MAC is made of its address: who has the address has the MAC."""
        return bool(self.addresses) and self.mac == mac_from_ip(self.address, self.address_v6, "")

    @property
    def known_addresses(self) -> tuple[IPAddress, ...]:
        """As :attr:`addresses`, and the address that the engine shows, which it has not released."""
        return (
            self.addresses if self.reported_address is None else (*self.addresses, self.reported_address.ip)
        )


@frozen
class MadeLink:
    """A link that we made for networks, and remove with the last of them."""

    name: str
    kind: str
    lower: str = ""
    vlan_id: int = 0
    mtu: int | None = None
