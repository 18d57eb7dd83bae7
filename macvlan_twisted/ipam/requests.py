"""What the engine may ask of address management, and what it is told: frozen values, spelt our way."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from attrs import frozen

from ..addresses import IPAddress, IPInterface, IPNetwork


class Purpose(Enum):
    """What an address is wanted for."""

    GATEWAY = "gateway"
    AUXILIARY = "auxiliary"
    """Kept free for a host of the LAN (``--aux-address``)."""
    HOST = "host"
    """The host's own, by which it reaches its containers."""
    ENDPOINT = "endpoint"


@frozen
class RequestPool:
    address_space: str
    pool: IPNetwork | None
    sub_pool: IPNetwork | None
    options: Mapping[str, str]
    v6: bool = False
    is_global: bool = False
    """Whether a swarm manager asks, on behalf of nodes: each asks again, for itself."""


@frozen
class GrantedPool:
    """The answer to RequestPool; with *gateway* the engine asks for none."""

    pool_id: str
    pool: IPNetwork
    gateway: IPInterface | None = None


@frozen
class RequestAddress:
    pool_id: str
    address: IPAddress | None
    purpose: Purpose = Purpose.ENDPOINT
    endpoint_name: str = ""


@frozen
class ReleaseAddress:
    pool_id: str
    address: IPAddress
