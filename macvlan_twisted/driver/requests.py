"""Requests to the network driver and its replies, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from ..addresses import IPAddress, IPInterface, IPNetwork
from .models import Subnet


@frozen
class GatewayCheck:
    """GwAllocCheck: would this network want a gateway to be made up?"""

    options: Mapping[str, str]


@frozen
class AllocateNetwork:
    network_id: str
    options: Mapping[str, str]


@frozen
class CreateNetwork:
    network_id: str
    options: Mapping[str, str]
    internal: bool = False
    subnets: tuple[Subnet, ...] = ()


@frozen
class CreateEndpoint:
    network_id: str
    endpoint_id: str
    address: IPInterface | None = None
    address_v6: IPInterface | None = None
    mac: str | None = None


@frozen
class CreatedEndpoint:
    """What we chose; the engine must not be told again what it had said itself."""

    mac: str | None
    address: IPInterface | None = None


@frozen
class EndpointCall:
    """All other calls about an endpoint name just the two of them."""

    network_id: str
    endpoint_id: str


@frozen
class StaticRoute:
    """A route within the sandbox; without a *next_hop* its destination is on the link itself."""

    destination: IPNetwork
    next_hop: IPAddress | None = None


@frozen
class Join(EndpointCall):
    """A container takes the endpoint's link."""

    sandbox: str = ""
    """The path of its network namespace."""


@frozen
class Joined:
    """How the engine is to fit the link into the sandbox."""

    link: str
    gateway: IPAddress | None = None
    gateway_v6: IPAddress | None = None
    static_routes: tuple[StaticRoute, ...] = ()
