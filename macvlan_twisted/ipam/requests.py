"""Requests to the IPAM driver and their replies, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from attrs import frozen

from ..addresses import IPAddress, IPInterface, IPNetwork


class Purpose(Enum):
    """The purpose of an address."""

    GATEWAY = "gateway"
    AUXILIARY = "auxiliary"
    """Reserved for a host on the LAN (``--aux-address``)."""
    HOST = "host"
    """The Docker host's own address for reaching its containers."""
    ENDPOINT = "endpoint"


@frozen
class RequestPool:
    address_space: str
    pool: IPNetwork | None
    sub_pool: IPNetwork | None
    options: Mapping[str, str]
    v6: bool = False
    is_global: bool = False
    """Whether a swarm manager requests the pool on behalf of the nodes, each of which requests its own."""


@frozen
class GrantedPool:
    """The reply to RequestPool. If it contains *gateway*, the engine does not request one."""

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
