"""What an engine accepts as a reply, one pure function for each kind of reply.

Each function looks at one reply and returns complaints in plain words, none when an engine would be content.
The sources are recordings of Docker 20.10 and 29: what these engines refused, and what broke afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface, ip_network
from typing import Any

from attrs import frozen

Complaints = list[str]
Json = Mapping[str, Any]

#: The longest link name that the kernel takes, in bytes (IFNAMSIZ less the final zero).
LONGEST_LINK_NAME = 15


def check_http(status: int, headers: Mapping[str, str], body: bytes, reply: Any) -> Complaints:
    """The frame of any reply to a method that exists: 200, a length, one JSON object.

    A 5xx is retried by nobody and shown to the user without the name of the plugin; a reply without a
    length costs dockerd a new connection for each call.
    """
    complaints = []
    if status != 200:
        complaints.append(f"status {status} instead of 200")
    complaints += _check_frame(headers, body, reply)
    return complaints


def check_unknown_method(status: int, headers: Mapping[str, str], body: bytes, reply: Any) -> Complaints:
    """An unknown method: engines take 404 for "not supported", and the body is still JSON."""
    complaints = []
    if status != 404:
        complaints.append(f"status {status} instead of 404")
    complaints += _check_frame(headers, body, reply)
    return complaints


def _check_frame(headers: Mapping[str, str], body: bytes, reply: Any) -> Complaints:
    complaints = []
    length = headers.get("content-length")
    if length is None:
        complaints.append("no Content-Length")
    elif length != str(len(body)):
        complaints.append(f"Content-Length {length} for {len(body)} bytes")
    if "chunked" in headers.get("transfer-encoding", ""):
        complaints.append("chunked: dockerd would not use the connection again")
    if not isinstance(reply, dict):
        complaints.append(f"not a JSON object: {body[:80]!r}")
    return complaints


def is_error(reply: Any) -> bool:
    """Whether an engine would take the reply for a failure, in either subsystem."""
    return isinstance(reply, dict) and bool(reply.get("Err") or reply.get("Error"))


def check_error(reply: Json) -> Complaints:
    """A failure: ``Err`` is read from network drivers and ``Error`` from IPAM drivers, so both are sent."""
    complaints = []
    for name in ("Err", "Error"):
        if not isinstance(reply.get(name), str) or not reply[name]:
            complaints.append(f"an error without a text in {name}")
    if not complaints and reply["Err"] != reply["Error"]:
        complaints.append(f"Err and Error differ: {reply['Err']!r} and {reply['Error']!r}")
    return complaints


def check_success(reply: Json) -> Complaints:
    """A success carries no text that an engine could take for an error."""
    return [f"a success with {name} {reply[name]!r}" for name in ("Err", "Error") if reply.get(name)]


def check_activate(reply: Json) -> Complaints:
    """Activate names what is implemented; an engine asks for nothing else afterwards."""
    implements = reply.get("Implements")
    missing = [
        name
        for name in ("NetworkDriver", "IpamDriver")
        if not (isinstance(implements, list) and name in implements)
    ]
    return [f"Implements lacks {name}" for name in missing]


def check_network_capabilities(reply: Json) -> Complaints:
    """A scope that an engine does not know poisons the plugin until dockerd is restarted."""
    complaints = []
    if reply.get("Scope") not in ("local", "global"):
        complaints.append(f"Scope {reply.get('Scope')!r} is neither local nor global")
    if reply.get("ConnectivityScope", "local") not in ("", "local", "global"):
        complaints.append(f"ConnectivityScope {reply['ConnectivityScope']!r} is neither local nor global")
    if not isinstance(reply.get("GwAllocChecker", False), bool):
        complaints.append("GwAllocChecker is not a boolean: Go's decoder refuses the whole reply")
    return complaints


def check_ipam_capabilities(reply: Json) -> Complaints:
    """Both capabilities are booleans; anything else fails in Go's decoder."""
    return [
        f"{name} is {reply[name]!r}, not a boolean"
        for name in ("RequiresMACAddress", "RequiresRequestReplay")
        if not isinstance(reply.get(name, False), bool)
    ]


def check_default_address_spaces(reply: Json) -> Complaints:
    """Two names, and two different ones, since in swarm the same pool is asked for in both spaces."""
    names = ("LocalDefaultAddressSpace", "GlobalDefaultAddressSpace")
    complaints = [f"no {name}" for name in names if not isinstance(reply.get(name), str) or not reply[name]]
    if not complaints and reply[names[0]] == reply[names[1]]:
        complaints.append("the local and the global address space are the same")
    return complaints


def check_gateway_allocation_check(reply: Json) -> Complaints:
    """GwAllocCheck answers two booleans."""
    return [
        f"{name} is {reply.get(name)!r}, not a boolean"
        for name in ("SkipIPv4", "SkipIPv6")
        if not isinstance(reply.get(name), bool)
    ]


def check_request_pool(request: Json, reply: Json) -> Complaints:
    """A pool has an id, for every later call, and a subnet; a gateway in Data is a CIDR in that subnet."""
    complaints = []
    if not isinstance(reply.get("PoolID"), str) or not reply["PoolID"]:
        complaints.append("no PoolID")
    try:
        pool = ip_network(str(reply.get("Pool", "")))
    except ValueError as error:
        return [*complaints, f"Pool is not a subnet: {error}"]
    if "/" not in str(reply["Pool"]):
        complaints.append(f"Pool {reply['Pool']} has no prefix length")
    if pool.version != (6 if request.get("V6") else 4):
        complaints.append(f"Pool {pool} is of the other address family")
    if request.get("Pool") and ip_network(request["Pool"], strict=False) != pool:
        complaints.append(f"Pool {pool}, asked was {request['Pool']}")
    gateway = (reply.get("Data") or {}).get("com.docker.network.gateway")
    if gateway is not None:
        complaints += _check_cidr("Data's gateway", gateway, str(pool))
    return complaints


def check_request_address(request: Json, reply: Json, pool: str | None) -> Complaints:
    """An address with the prefix length of its pool; the very one that was asked for, if one was.

    Without prefix length an engine cannot parse it; with another one the start of the container fails.
    """
    address = reply.get("Address")
    complaints = _check_cidr("Address", address, pool)
    asked = request.get("Address")
    if not complaints and asked and ip_interface(str(address)).ip != ip_interface(asked).ip:
        complaints.append(f"Address {address}, asked was {asked}")
    return complaints


def _check_cidr(what: str, text: Any, pool: str | None) -> Complaints:
    if not isinstance(text, str) or "/" not in text:
        return [f"{what} {text!r} has no prefix length"]
    try:
        interface = ip_interface(text)
    except ValueError as error:
        return [f"{what}: {error}"]
    if pool is None:
        return []
    if ip_network(pool).prefixlen == 0:
        return _check_address_of_any_subnet(what, interface)
    if interface.network != ip_network(pool):
        return [f"{what} {text} is not an address of {pool} with that prefix length"]
    return []


def _check_address_of_any_subnet(what: str, interface: IPv4Interface | IPv6Interface) -> Complaints:
    """A pool of 0.0.0.0/0 says nothing of the LAN; 0.0.0.0/0 for an address means: none, ask DHCP."""
    if interface.network.prefixlen == 0 and not interface.ip.is_unspecified:
        return [f"{what} {interface} has the prefix length of its pool, which is none of any LAN"]
    return []


def check_create_endpoint(request: Json, reply: Json) -> Complaints:
    """The reply must not repeat what the request had set, not even with the same value.

    Both engines answer that with "driver modified interface ..." and delete the endpoint.
    """
    given = request.get("Interface") or {}
    interface = reply.get("Interface")
    if interface is None:
        return []
    if not isinstance(interface, dict):
        return [f"Interface is {interface!r}, not an object"]
    complaints = [
        f"{name} {interface[name]!r} although the request had set it to {given[name]!r}"
        for name in ("Address", "AddressIPv6", "MacAddress")
        if interface.get(name) and given.get(name)
    ]
    mac = interface.get("MacAddress")
    if mac and not _is_unicast_mac(str(mac)):
        complaints.append(f"MacAddress {mac!r} is not the address of one host")
    for name, version in (("Address", 4), ("AddressIPv6", 6)):
        if interface.get(name):
            complaints += _check_cidr(name, interface[name], None)
            if not complaints and ip_interface(interface[name]).version != version:
                complaints.append(f"{name} {interface[name]} is of the other address family")
    return complaints


def _is_unicast_mac(text: str) -> bool:
    parts = text.split(":")
    try:
        numbers = [int(part, 16) for part in parts if len(part) == 2]
    except ValueError:
        return False
    return len(parts) == len(numbers) == 6 and not numbers[0] & 1


def check_join(reply: Json, addresses: Iterable[str], internal: bool) -> Complaints:
    """A link to move, and gateways that the endpoint can reach.

    *addresses* are the endpoint's own, in CIDR. An engine that gets no gateway for a network that is not
    internal plugs the container into the bridge docker_gwbridge, unless it is told not to.
    """
    complaints = _check_interface_name(reply.get("InterfaceName"))
    own = [ip_interface(text) for text in addresses if text and ip_interface(text).network.prefixlen]
    has_gateway = False
    for name, version in (("Gateway", 4), ("GatewayIPv6", 6)):
        gateway = reply.get(name)
        if gateway in (None, ""):
            continue
        has_gateway = True
        complaints += _check_gateway(name, gateway, version, own)
    if internal and has_gateway:
        complaints.append("a gateway for an internal network")
    if not internal and not has_gateway and reply.get("DisableGatewayService") is not True:
        complaints.append(
            "neither a gateway nor DisableGatewayService: the container gets a second interface"
        )
    complaints += _check_static_routes(reply.get("StaticRoutes") or [])
    return complaints


def _check_interface_name(name: Any) -> Complaints:
    if not isinstance(name, dict):
        return ["no InterfaceName"]
    complaints = []
    source, prefix = name.get("SrcName"), name.get("DstPrefix")
    if not isinstance(source, str) or not source:
        complaints.append("no SrcName")
    elif len(source.encode()) > LONGEST_LINK_NAME:
        complaints.append(f"SrcName {source} has more than {LONGEST_LINK_NAME} bytes")
    if not isinstance(prefix, str) or not prefix:
        complaints.append("no DstPrefix")
    return complaints


def _check_gateway(name: str, gateway: Any, version: int, own: list[Any]) -> Complaints:
    try:
        address = ip_address(str(gateway))
    except ValueError:
        return [f"{name} {gateway!r} is not a bare address: the start of the container fails"]
    if address.version != version:
        return [f"{name} {gateway} is of the other address family"]
    subnets = [each.network for each in own if each.version == version]
    on_link = address.is_link_local or any(address in subnet for subnet in subnets)
    if subnets and not on_link:
        return [
            f"{name} {gateway} is in none of {', '.join(map(str, subnets))}: unreachable for the container"
        ]
    return []


def _check_static_routes(routes: Iterable[Any]) -> Complaints:
    complaints = []
    for route in routes:
        try:
            ip_network(route["Destination"], strict=False)
            if route.get("RouteType", 0) not in (0, 1):
                complaints.append(f"RouteType {route['RouteType']!r} is neither 0 nor 1")
            elif route.get("RouteType", 0) == 0:
                ip_address(route.get("NextHop", ""))
        except (KeyError, TypeError, ValueError) as error:
            complaints.append(f"static route {route!r}: {error}")
    return complaints


def check_endpoint_oper_info(reply: Json) -> Complaints:
    """20.10 fails the start of a container over this call; ``Value`` may be absent, else it is a map."""
    if not isinstance(reply.get("Value") or {}, dict):
        return [f"Value is {reply['Value']!r}, not an object"]
    return []


def check_allocate_network(request: Json, reply: Json) -> Complaints:
    """Its Options *replace* the user's -o options in the CreateNetwork that follows: lose none of them."""
    given, answered = request.get("Options") or {}, reply.get("Options") or {}
    return [f"option {name}={value} got lost" for name, value in given.items() if answered.get(name) != value]


@frozen
class CallContext:
    """What an engine knows besides the request: the pool asked from, the endpoint's addresses, --internal."""

    pool: str | None = None
    addresses: tuple[str, ...] = ()
    internal: bool = False


def check_successful_reply(method: str, request: Json, reply: Json, context: CallContext) -> Complaints:
    """All that an engine would refuse in the reply of a call that went well."""
    complaints = check_success(reply)
    match method.partition(".")[2]:
        case "Activate":
            complaints += check_activate(reply)
        case "GetCapabilities" if method.startswith("NetworkDriver."):
            complaints += check_network_capabilities(reply)
        case "GetCapabilities":
            complaints += check_ipam_capabilities(reply)
        case "GetDefaultAddressSpaces":
            complaints += check_default_address_spaces(reply)
        case "GwAllocCheck":
            complaints += check_gateway_allocation_check(reply)
        case "RequestPool":
            complaints += check_request_pool(request, reply)
        case "RequestAddress":
            complaints += check_request_address(request, reply, context.pool)
        case "CreateEndpoint":
            complaints += check_create_endpoint(request, reply)
        case "Join":
            complaints += check_join(reply, context.addresses, context.internal)
        case "EndpointOperInfo":
            complaints += check_endpoint_oper_info(reply)
        case "AllocateNetwork":
            complaints += check_allocate_network(request, reply)
    return complaints
