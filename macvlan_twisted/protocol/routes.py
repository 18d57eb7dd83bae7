"""
Every call of the engine: how it is read, who does it, how the answer is written.

A reader who wants to know what a call does starts here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from ..driver.endpoints import Endpoints
from ..driver.networks import Networks
from ..driver.removal import EndpointRemoval
from ..driver.requests import CreateNetwork
from ..ipam.address_requests import AddressRequests
from ..ipam.pool_binding import PoolBinding
from ..ipam.pool_requests import PoolRequests
from . import messages
from .json_reader import Fields, parse_body

Reply = Mapping[str, Any]
Method = Callable[[bytes], Awaitable[Reply]]
Request = TypeVar("Request")
Result = TypeVar("Result")


def all_methods(
    networks: Networks,
    endpoints: Endpoints,
    removal: EndpointRemoval,
    pool_binding: PoolBinding,
    pools: PoolRequests,
    addresses: AddressRequests,
) -> dict[str, Method]:
    """What to do for each path that the engine posts to, without its slash."""
    methods: dict[str, Method] = {
        "Plugin.Activate": _always(messages.ACTIVATED),
        "NetworkDriver.GetCapabilities": _always(messages.NETWORK_CAPABILITIES),
        "NetworkDriver.DiscoverNew": _always({}),
        "NetworkDriver.DiscoverDelete": _always({}),
        "IpamDriver.GetCapabilities": _always(messages.IPAM_CAPABILITIES),
        "IpamDriver.GetDefaultAddressSpaces": _always(messages.ADDRESS_SPACES),
    }

    def call(
        name: str,
        read: Callable[[Fields], Request],
        do: Callable[[Request], Awaitable[Result]],
        write: Callable[[Result], Reply],
    ) -> None:
        async def method(raw: bytes) -> Reply:
            return write(await do(read(parse_body(name, raw))))

        methods[name] = method

    call(
        "NetworkDriver.GwAllocCheck",
        messages.gateway_check,
        networks.gateway_check,
        messages.gateway_check_reply,
    )
    call(
        "NetworkDriver.AllocateNetwork",
        messages.allocate_network,
        networks.allocate,
        messages.allocate_network_reply,
    )
    call("NetworkDriver.FreeNetwork", messages.network_id, networks.free, _nothing)

    async def create_network(request: CreateNetwork) -> None:
        await networks.create(request)
        await pool_binding.network_made(
            networks.parent_of(request.network_id),
            [(each.pool, each.auxiliary.values()) for each in request.subnets if each.managed_here],
            request.network_id,
        )

    call("NetworkDriver.CreateNetwork", messages.create_network, create_network, _nothing)
    call("NetworkDriver.DeleteNetwork", messages.network_id, networks.delete, _nothing)
    call(
        "NetworkDriver.CreateEndpoint",
        messages.create_endpoint,
        endpoints.create,
        messages.create_endpoint_reply,
    )
    call(
        "NetworkDriver.EndpointOperInfo",
        messages.endpoint_call,
        endpoints.operational_info,
        messages.operational_info_reply,
    )
    call("NetworkDriver.Join", messages.join, endpoints.join, messages.join_reply)
    call("NetworkDriver.ProgramExternalConnectivity", messages.endpoint_call, _no_effect, _nothing)
    call("NetworkDriver.RevokeExternalConnectivity", messages.endpoint_call, _no_effect, _nothing)
    call("NetworkDriver.Leave", messages.endpoint_call, endpoints.leave, _nothing)
    call("NetworkDriver.DeleteEndpoint", messages.endpoint_call, removal.delete, _nothing)
    call("IpamDriver.RequestPool", messages.request_pool, pools.request_pool, messages.request_pool_reply)
    call("IpamDriver.ReleasePool", messages.pool_id, pools.release_pool, _nothing)
    call(
        "IpamDriver.RequestAddress",
        messages.request_address,
        addresses.request_address,
        messages.request_address_reply,
    )
    call("IpamDriver.ReleaseAddress", messages.release_address, addresses.release_address, _nothing)
    return methods


def _always(reply: Reply) -> Method:
    """For calls that come without a body and are answered the same whatever came."""

    async def method(raw: bytes) -> Reply:
        return reply

    return method


def _nothing(result: None) -> Reply:
    return {}


async def _no_effect(request: object) -> None:
    """Ports are not published on a LAN: the containers have addresses of their own."""
