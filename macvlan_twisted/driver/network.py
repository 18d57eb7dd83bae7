"""What a network is, and what can be said of it without asking anyone."""

from __future__ import annotations

from attrs import frozen

from ..addresses import IPAddress, IPInterface
from .requests import SubnetData


@frozen
class VlanStep:
    """One 802.1Q sub-interface on the way from the NIC to the networks' parent."""

    link: str
    lower: str
    vlan_id: int


@frozen
class Network:
    """A network as it was created; kept in state, so a new member needs a default."""

    network_id: str
    parent: str
    mode: str
    subnets: tuple[SubnetData, ...] = ()
    mtu: int | None = None
    internal: bool = False
    on_dummy: bool = False
    vlan_steps: tuple[VlanStep, ...] = ()
    broadcast_queue_length: int | None = None
    broadcast_limit: int | None = None
    nopromisc: bool = False
    source_macs: tuple[str, ...] = ()
    force_mac: bool = False

    @property
    def vlan_id(self) -> int | None:
        return self.vlan_steps[-1].vlan_id if self.vlan_steps else None

    @property
    def short_id(self) -> str:
        return self.network_id[:12]

    def subnet_of(self, address: IPAddress) -> SubnetData | None:
        return next((each for each in self.subnets if address in each.pool), None)

    def gateway_for(self, address: IPInterface | None) -> IPAddress | None:
        """The gateway of the endpoint's own subnet: that of another one would be unreachable."""
        if address is None or self.internal:
            return None
        subnet = self.subnet_of(address.ip)
        return subnet.gateway if subnet is not None else None


@frozen
class Endpoint:
    """An endpoint as it was created; kept in state, so a new member needs a default."""

    endpoint_id: str
    network_id: str
    link: str
    parent: str
    mac: str | None
    mac_is_ours: bool
    address: IPInterface | None = None
    address_v6: IPInterface | None = None

    @property
    def short_id(self) -> str:
        return self.endpoint_id[:12]


@frozen
class MadeLink:
    """A link that we made for networks, and will remove with the last of them."""

    name: str
    kind: str
    lower: str = ""
    vlan_id: int = 0
