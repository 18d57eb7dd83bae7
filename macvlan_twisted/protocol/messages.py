"""
Translate between Docker's JSON and frozen values. Docker's member names appear only here.

The fields are those in recorded traffic of engines 20.10 and 29: the public documentation is incomplete and partly
wrong. Unknown members are ignored, since newer engines add some.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..addresses import IPAddress, IPInterface, parse_address, parse_interface, parse_mac, parse_network
from ..driver import requests as driver
from ..driver.models import Subnet
from ..ipam import requests as ipam
from .json_reader import Fields

GENERIC_OPTIONS = "com.docker.network.generic"
INTERNAL_OPTION = "com.docker.network.internal"
GATEWAY_DATA = "com.docker.network.gateway"
ADDRESS_TYPE_OPTION = "RequestAddressType"
ENDPOINT_NAME_OPTION = "com.docker.network.endpoint.name"
MAX_NAME_LENGTH = 255
"""Characters of a container name that is recorded. Engines have no limit; a host name has at most 63."""

NULL_ADDRESS_SPACE = "null"
_BY_NEXT_HOP, _ON_LINK = 0, 1
"""``RouteType`` of a static route."""

LOCAL_ADDRESS_SPACE = "MacvlanTwistedLocal"
GLOBAL_ADDRESS_SPACE = "MacvlanTwistedGlobal"

ACTIVATED = {"Implements": ["NetworkDriver", "IpamDriver"]}
# Scope local: a network belongs to one host. ConnectivityScope global: other hosts on the LAN reach its containers.
# GwAllocChecker: engines from 28 on call GwAllocCheck before they pick a gateway.
NETWORK_CAPABILITIES = {"Scope": "local", "ConnectivityScope": "global", "GwAllocChecker": True}
# RequiresMACAddress would have the engine generate a random MAC in place of ours. RequiresRequestReplay is for plugins
# without state of their own; replayed requests could only contradict ours.
IPAM_CAPABILITIES = {"RequiresMACAddress": False, "RequiresRequestReplay": False}
ADDRESS_SPACES = {
    "LocalDefaultAddressSpace": LOCAL_ADDRESS_SPACE,
    "GlobalDefaultAddressSpace": GLOBAL_ADDRESS_SPACE,
}


def _without_prefix(text: str) -> IPAddress:
    return parse_interface(text).ip if "/" in text else parse_address(text)


def _subnets(body: Fields) -> tuple[Subnet, ...]:
    return tuple(
        Subnet(
            pool=each.required("Pool", parse_network),
            gateway=each.parsed("Gateway", _without_prefix),
            auxiliary={
                name: each.object("AuxAddresses").required(name, _without_prefix)
                for name in each.texts("AuxAddresses")
            },
            managed_here=each.text("AddressSpace") in ADDRESS_SPACES.values(),
            null_ipam=each.text("AddressSpace") == NULL_ADDRESS_SPACE,
        )
        for family in ("IPv4Data", "IPv6Data")
        for each in body.objects(family)
    )


def gateway_check(body: Fields) -> driver.GatewayCheck:
    return driver.GatewayCheck(body.object("Options").texts(GENERIC_OPTIONS))


def gateway_check_reply(skip: bool) -> dict[str, Any]:
    return {"SkipIPv4": skip, "SkipIPv6": skip}


def allocate_network(body: Fields) -> driver.AllocateNetwork:
    return driver.AllocateNetwork(body.identifier("NetworkID"), body.texts("Options"))


def allocate_network_reply(options: Mapping[str, str]) -> dict[str, Any]:
    return {"Options": dict(options)}


def network_id(body: Fields) -> str:
    return body.identifier("NetworkID")


def create_network(body: Fields) -> driver.CreateNetwork:
    options = body.object("Options")
    return driver.CreateNetwork(
        network_id=body.identifier("NetworkID"),
        options=options.texts(GENERIC_OPTIONS),
        internal=options.flag(INTERNAL_OPTION),
        subnets=_subnets(body),
    )


def create_endpoint(body: Fields) -> driver.CreateEndpoint:
    interface = body.object("Interface")
    return driver.CreateEndpoint(
        network_id=body.identifier("NetworkID"),
        endpoint_id=body.identifier("EndpointID"),
        address=interface.parsed("Address", parse_interface),
        address_v6=interface.parsed("AddressIPv6", parse_interface),
        mac=interface.parsed("MacAddress", parse_mac),
    )


def create_endpoint_reply(created: driver.CreatedEndpoint) -> dict[str, Any]:
    """Only what the plugin chose: the engine refuses a reply that repeats a member of the request, even unchanged."""
    chosen = {"MacAddress": created.mac, "Address": created.address}
    return {"Interface": {name: str(value) for name, value in chosen.items() if value is not None}}


def endpoint_call(body: Fields) -> driver.EndpointCall:
    return driver.EndpointCall(body.identifier("NetworkID"), body.identifier("EndpointID"))


def operational_info_reply(info: dict[str, str]) -> dict[str, Any]:
    return {"Value": info}


def join(body: Fields) -> driver.Join:
    return driver.Join(body.identifier("NetworkID"), body.identifier("EndpointID"), body.text("SandboxKey"))


def join_reply(joined: driver.Joined) -> dict[str, Any]:
    reply: dict[str, Any] = {"InterfaceName": {"SrcName": joined.link, "DstPrefix": "eth"}}
    if joined.gateway is not None:
        reply["Gateway"] = str(joined.gateway)
    if joined.gateway_v6 is not None:
        reply["GatewayIPv6"] = str(joined.gateway_v6)
    # Else the engine connects a container without a gateway to its own bridge, docker_gwbridge.
    if joined.gateway is None and joined.gateway_v6 is None:
        reply["DisableGatewayService"] = True
    if joined.static_routes:
        reply["StaticRoutes"] = [_static_route(each) for each in joined.static_routes]
    return reply


def _static_route(route: driver.StaticRoute) -> dict[str, Any]:
    if route.next_hop is None:
        return {"Destination": str(route.destination), "RouteType": _ON_LINK}
    return {
        "Destination": str(route.destination),
        "RouteType": _BY_NEXT_HOP,
        "NextHop": str(route.next_hop),
    }


def request_pool(body: Fields) -> ipam.RequestPool:
    return ipam.RequestPool(
        address_space=body.text("AddressSpace"),
        pool=body.parsed("Pool", parse_network),
        sub_pool=body.parsed("SubPool", parse_network),
        options=body.texts("Options"),
        v6=body.flag("V6"),
        is_global=body.text("AddressSpace") == GLOBAL_ADDRESS_SPACE,
    )


def request_pool_reply(granted: ipam.GrantedPool) -> dict[str, Any]:
    data = {GATEWAY_DATA: str(granted.gateway)} if granted.gateway is not None else {}
    return {"PoolID": granted.pool_id, "Pool": str(granted.pool), "Data": data}


def pool_id(body: Fields) -> str:
    return body.text("PoolID")


def _name(text: str) -> str:
    """*text*, or ``""`` if no container can have that name."""
    return text if text.isprintable() and len(text) <= MAX_NAME_LENGTH else ""


def request_address(body: Fields) -> ipam.RequestAddress:
    options = body.texts("Options")
    is_gateway = options.get(ADDRESS_TYPE_OPTION) == GATEWAY_DATA
    return ipam.RequestAddress(
        pool_id=body.text("PoolID"),
        address=body.parsed("Address", _without_prefix),
        purpose=ipam.Purpose.GATEWAY if is_gateway else ipam.Purpose.ENDPOINT,
        endpoint_name=_name(options.get(ENDPOINT_NAME_OPTION, "")),
    )


def request_address_reply(address: IPInterface) -> dict[str, Any]:
    return {"Address": str(address), "Data": {}}


def release_address(body: Fields) -> ipam.ReleaseAddress:
    return ipam.ReleaseAddress(body.text("PoolID"), body.required("Address", _without_prefix))
