"""What the engine may ask of the network driver, and what it is told: frozen values, spelt our way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from ..addresses import IPAddress, IPInterface, IPNetwork


@frozen
class SubnetData:
    """One subnet of a network, as the engine's address management decided it."""

    pool: IPNetwork
    gateway: IPAddress | None = None
    auxiliary: Mapping[str, IPAddress] = field(factory=dict)


@frozen
class GatewayCheck:
    """GwAllocCheck: would this network want a gateway to be made up?"""

    options: Mapping[str, str]
    internal: bool = False


@frozen
class AllocateNetwork:
    network_id: str
    options: Mapping[str, str]


@frozen
class CreateNetwork:
    network_id: str
    options: Mapping[str, str]
    internal: bool = False
    subnets: tuple[SubnetData, ...] = ()


@frozen
class CreateEndpoint:
    network_id: str
    endpoint_id: str
    address: IPInterface | None = None
    address_v6: IPInterface | None = None
    mac: str | None = None
    options: Mapping[str, Any] = field(factory=dict)


@frozen
class EndpointCall:
    """All other calls about an endpoint name just the two of them."""

    network_id: str
    endpoint_id: str


@frozen
class Joined:
    """How the engine is to fit the link into the sandbox."""

    link: str
    gateway: IPAddress | None = None
    gateway_v6: IPAddress | None = None
