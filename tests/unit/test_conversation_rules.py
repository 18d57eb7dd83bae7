"""Each rule of the conversations notices what it is there for. Valid replies are those of the conversations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conversations import rules
from tests.conversations.rules import CallContext

FRAME = {"content-length": "2"}
SPACES = {"LocalDefaultAddressSpace": "l", "GlobalDefaultAddressSpace": "g"}
ADDRESSES = ("10.1.0.2/24", "fd00::2/64")
POOL, GATEWAY = {"PoolID": "p", "Pool": "10.1.0.0/24"}, "com.docker.network.gateway"


def joined(**members: Any) -> dict[str, Any]:
    return {"InterfaceName": {"SrcName": "mvt0123456789ab", "DstPrefix": "eth"}, **members}


def named(source: str, prefix: str) -> dict[str, Any]:
    return {"InterfaceName": {"SrcName": source, "DstPrefix": prefix}, "Gateway": "10.1.0.1"}


def routed(**route: Any) -> dict[str, Any]:
    return joined(Gateway="10.1.0.1", StaticRoutes=[route])


Rule = Callable[..., list[str]]
NOTICED: list[tuple[Rule, list[tuple[Any, ...]]]] = [
    (
        rules.check_http,
        [
            (500, FRAME, b"{}", {}),
            (200, {}, b"{}", {}),
            (200, {"content-length": "3"}, b"{}", {}),
            (200, {**FRAME, "transfer-encoding": "chunked"}, b"{}", {}),
            (200, FRAME, b"[]", []),
        ],
    ),
    (
        rules.check_unknown_method,
        [(s, FRAME, b"{}", reply) for s, reply in ((200, {}), (500, {}), (404, None))],
    ),
    (rules.check_success, [({"Err": "x"},), ({"Error": "x"},), ({"Err": "x", "Error": "x"},)]),
    (
        rules.check_error,
        [
            ({"Err": "x"},),
            ({"Error": "x"},),
            ({"Err": "x", "Error": "y"},),
            ({"Err": "x", "Error": ""},),
            ({"Err": 1},),
        ],
    ),
    (
        rules.check_activate,
        [({},), *(({"Implements": each},) for each in (["NetworkDriver"], ["IpamDriver"], "NetworkDriver"))],
    ),
    (
        rules.check_network_capabilities,
        [
            ({},),
            ({"Scope": ""},),
            ({"Scope": "swarm"},),
            ({"Scope": "local", "ConnectivityScope": "lan"},),
            ({"Scope": "local", "GwAllocChecker": "yes"},),
        ],
    ),
    (rules.check_ipam_capabilities, [({"RequiresMACAddress": "true"},), ({"RequiresRequestReplay": 1},)]),
    (
        rules.check_default_address_spaces,
        [
            ({},),
            ({"LocalDefaultAddressSpace": "l"},),
            ({**SPACES, "GlobalDefaultAddressSpace": ""},),
            ({**SPACES, "GlobalDefaultAddressSpace": "l"},),
        ],
    ),
    (
        rules.check_gateway_allocation_check,
        [({},), ({"SkipIPv4": True},), ({"SkipIPv4": "no", "SkipIPv6": False},)],
    ),
    (
        rules.check_request_pool,
        [
            ({"Pool": ""}, {"PoolID": "", "Pool": "10.1.0.0/24"}),
            ({"Pool": ""}, {"Pool": "10.1.0.0/24"}),
            *(({"Pool": ""}, {"PoolID": "p", **pool}) for pool in ({}, {"Pool": ""}, {"Pool": "10.1.0.0"})),
            ({"Pool": ""}, {"PoolID": "p", "Pool": "10.1.0.7/24"}),
            ({"Pool": "10.2.0.0/24"}, POOL),
            ({"Pool": "", "V6": True}, POOL),
            ({"Pool": ""}, {"PoolID": "p", "Pool": "fd00::/64"}),
            ({"Pool": ""}, {**POOL, "Data": {GATEWAY: "10.1.0.1"}}),
            ({"Pool": ""}, {**POOL, "Data": {GATEWAY: "10.2.0.1/24"}}),
        ],
    ),
    (
        rules.check_request_address,
        [
            *(
                ({"Address": ""}, {"Address": answered}, "10.1.0.0/24")
                for answered in ("", None, "10.1.0.2", "10.1.0.2/32", "10.2.0.2/24", "0.0.0.0/0", "router/24")
            ),
            ({"Address": "10.1.0.9"}, {"Address": "10.1.0.2/24"}, "10.1.0.0/24"),
            ({"Address": ""}, {"Address": "10.1.0.2/0"}, "0.0.0.0/0"),
        ],
    ),
    (
        rules.check_create_endpoint,
        [
            ({"Interface": given}, {"Interface": answered})
            for given, answered in (
                ({"Address": "10.1.0.2/24"}, {"Address": "10.1.0.2/24"}),
                ({"Address": "10.1.0.2/24"}, {"Address": "10.1.0.3/24"}),
                ({"AddressIPv6": "fd00::2/64"}, {"AddressIPv6": "fd00::2/64"}),
                ({"MacAddress": "02:00:00:00:00:01"}, {"MacAddress": "02:00:00:00:00:01"}),
                ({}, {"MacAddress": "01:00:5e:00:00:01"}),
                ({}, {"MacAddress": "02-00-00-00-00-01"}),
                ({}, {"MacAddress": "02:00:00:00:00:zz"}),
                ({}, {"Address": "10.1.0.2"}),
                ({}, {"AddressIPv6": "10.1.0.2/24"}),
                ({}, "eth0"),
            )
        ],
    ),
    (
        rules.check_join,
        [
            (joined(Gateway="10.1.0.1"), ADDRESSES, True),
            *(
                (reply, ADDRESSES, False)
                for reply in (
                    {"Gateway": "10.1.0.1"},
                    named("mvt0", ""),
                    named("", "eth"),
                    named("mvt0123456789abc", "eth"),
                    joined(Gateway="10.1.0.1/24"),
                    joined(Gateway="router"),
                    joined(Gateway="10.2.0.1"),
                    joined(Gateway="fd00::1"),
                    joined(GatewayIPv6="10.1.0.1"),
                    joined(GatewayIPv6="fd01::1"),
                    joined(),
                    joined(Gateway="", DisableGatewayService=False),
                    joined(DisableGatewayService="yes"),
                    routed(Destination="10.5.0.0/16", RouteType=2),
                    routed(Destination="10.5.0.0/16", RouteType=0),
                    routed(RouteType=1),
                )
            ),
        ],
    ),
    (rules.check_endpoint_oper_info, [({"Value": ["x"]},)]),
    (
        rules.check_allocate_network,
        [
            ({"Options": {"parent": "eth1"}}, reply)
            for reply in (dict[str, Any](), {"Options": None}, {"Options": {"parent": "eth2"}})
        ],
    ),
    (
        rules.check_successful_reply,
        [
            ("Plugin.Activate", {}, {}, CallContext()),
            ("NetworkDriver.GetCapabilities", {}, {}, CallContext()),
            ("IpamDriver.GetCapabilities", {}, {"RequiresMACAddress": 1}, CallContext()),
            ("IpamDriver.GetDefaultAddressSpaces", {}, {}, CallContext()),
            ("NetworkDriver.GwAllocCheck", {}, {}, CallContext()),
            ("IpamDriver.RequestPool", {}, {}, CallContext()),
            ("IpamDriver.RequestAddress", {}, {"Address": "10.1.0.2/24"}, CallContext(pool="10.2.0.0/24")),
            ("NetworkDriver.CreateEndpoint", {}, {"Interface": "eth0"}, CallContext()),
            ("NetworkDriver.Join", {}, joined(Gateway="10.1.0.1"), CallContext(addresses=("10.2.0.2/24",))),
            ("NetworkDriver.Join", {}, joined(Gateway="10.1.0.1"), CallContext(internal=True)),
            ("NetworkDriver.EndpointOperInfo", {}, {"Value": 1}, CallContext()),
            ("NetworkDriver.AllocateNetwork", {"Options": {"a": "b"}}, {}, CallContext()),
            ("NetworkDriver.Leave", {}, {"Err": "boom"}, CallContext()),
        ],
    ),
]


@pytest.mark.parametrize(
    ("rule", "about"),
    [
        pytest.param(rule, about, id=f"{rule.__name__}-{number}")
        for rule, many in NOTICED
        for number, about in enumerate(many)
    ],
)
def test_invalid_reply_is_noticed(rule: Rule, about: tuple[Any, ...]) -> None:
    assert rule(*about)


@pytest.mark.parametrize("reply", [{"Err": "x"}, {"Error": "x"}, {"Err": "x", "Error": "x"}])
def test_error_of_either_subsystem_is_recognized(reply: dict[str, Any]) -> None:
    assert rules.is_error(reply)


@pytest.mark.parametrize("reply", [{}, {"Err": ""}, {"Value": "Error"}, None, []])
def test_success_is_not_an_error(reply: Any) -> None:
    assert not rules.is_error(reply)
