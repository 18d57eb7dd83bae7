"""Each rule of the conversations' referee can fail: a referee that never whistles proves nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conversations import rules
from tests.conversations.rules import Surroundings

FRAME = {"content-length": "2"}


def joined(**members: Any) -> dict[str, Any]:
    return {"InterfaceName": {"SrcName": "mvt0123456789ab", "DstPrefix": "eth"}, **members}


def test_well_framed_reply_is_accepted() -> None:
    assert rules.check_http(200, FRAME, b"{}", {}) == []


@pytest.mark.parametrize(
    ("status", "headers", "body", "reply"),
    [
        (500, FRAME, b"{}", {}),
        (404, FRAME, b"{}", {}),
        (204, {"content-length": "0"}, b"", None),
        (200, {}, b"{}", {}),
        (200, {"content-length": "3"}, b"{}", {}),
        (200, {**FRAME, "transfer-encoding": "chunked"}, b"{}", {}),
        (200, {"content-length": "0"}, b"", None),
        (200, {"content-length": "4"}, b"null", None),
        (200, FRAME, b"[]", []),
    ],
)
def test_badly_framed_reply_is_noticed(status: int, headers: dict[str, str], body: bytes, reply: Any) -> None:
    assert rules.check_http(status, headers, body, reply)


@pytest.mark.parametrize(("status", "reply"), [(200, {}), (500, {}), (404, None)])
def test_reply_to_an_unknown_method_must_be_404_with_json(status: int, reply: Any) -> None:
    assert rules.check_unknown_method(404, FRAME, b"{}", {}) == []
    assert rules.check_unknown_method(status, FRAME, b"{}", reply)


@pytest.mark.parametrize("reply", [{"Err": "x"}, {"Error": "x"}, {"Err": "x", "Error": "x"}])
def test_error_of_either_subsystem_is_recognized(reply: dict[str, Any]) -> None:
    assert rules.is_error(reply)
    assert rules.check_success(reply)


@pytest.mark.parametrize("reply", [{}, {"Err": ""}, {"Value": "Error"}, None, []])
def test_success_is_not_an_error(reply: Any) -> None:
    assert not rules.is_error(reply)


@pytest.mark.parametrize(
    "reply", [{"Err": "x"}, {"Error": "x"}, {"Err": "x", "Error": "y"}, {"Err": "x", "Error": ""}, {"Err": 1}]
)
def test_error_must_be_visible_to_both_subsystems(reply: dict[str, Any]) -> None:
    assert rules.check_error({"Err": "x", "Error": "x"}) == []
    assert rules.check_error(reply)


@pytest.mark.parametrize(
    "reply",
    [{}, {"Implements": ["NetworkDriver"]}, {"Implements": ["IpamDriver"]}, {"Implements": "NetworkDriver"}],
)
def test_activate_must_name_both_subsystems(reply: dict[str, Any]) -> None:
    assert rules.check_activate({"Implements": ["NetworkDriver", "IpamDriver"]}) == []
    assert rules.check_activate(reply)


@pytest.mark.parametrize(
    "reply",
    [
        {},
        {"Scope": ""},
        {"Scope": "swarm"},
        {"Scope": "local", "ConnectivityScope": "lan"},
        {"Scope": "local", "GwAllocChecker": "yes"},
    ],
)
def test_network_capabilities_must_be_valid(reply: dict[str, Any]) -> None:
    assert rules.check_network_capabilities({"Scope": "local", "ConnectivityScope": "global"}) == []
    assert rules.check_network_capabilities(reply)


@pytest.mark.parametrize("reply", [{"RequiresMACAddress": "true"}, {"RequiresRequestReplay": 1}])
def test_ipam_capabilities_must_be_booleans(reply: dict[str, Any]) -> None:
    assert rules.check_ipam_capabilities({"RequiresMACAddress": False}) == []
    assert rules.check_ipam_capabilities(reply)


@pytest.mark.parametrize(
    "reply",
    [
        {},
        {"LocalDefaultAddressSpace": "l"},
        {"LocalDefaultAddressSpace": "l", "GlobalDefaultAddressSpace": ""},
        {"LocalDefaultAddressSpace": "l", "GlobalDefaultAddressSpace": "l"},
    ],
)
def test_address_spaces_must_be_present_and_different(reply: dict[str, Any]) -> None:
    good = {"LocalDefaultAddressSpace": "l", "GlobalDefaultAddressSpace": "g"}
    assert rules.check_default_address_spaces(good) == []
    assert rules.check_default_address_spaces(reply)


@pytest.mark.parametrize("reply", [{}, {"SkipIPv4": True}, {"SkipIPv4": "no", "SkipIPv6": False}])
def test_gateway_check_must_have_both_booleans(reply: dict[str, Any]) -> None:
    assert rules.check_gateway_allocation_check({"SkipIPv4": True, "SkipIPv6": False}) == []
    assert rules.check_gateway_allocation_check(reply)


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        ({"Pool": ""}, {"PoolID": "", "Pool": "10.1.0.0/24"}),
        ({"Pool": ""}, {"Pool": "10.1.0.0/24"}),
        ({"Pool": ""}, {"PoolID": "p"}),
        ({"Pool": ""}, {"PoolID": "p", "Pool": ""}),
        ({"Pool": ""}, {"PoolID": "p", "Pool": "10.1.0.0"}),
        ({"Pool": ""}, {"PoolID": "p", "Pool": "10.1.0.7/24"}),
        ({"Pool": "10.2.0.0/24"}, {"PoolID": "p", "Pool": "10.1.0.0/24"}),
        ({"Pool": "", "V6": True}, {"PoolID": "p", "Pool": "10.1.0.0/24"}),
        ({"Pool": ""}, {"PoolID": "p", "Pool": "fd00::/64"}),
        (
            {"Pool": ""},
            {"PoolID": "p", "Pool": "10.1.0.0/24", "Data": {"com.docker.network.gateway": "10.1.0.1"}},
        ),
        (
            {"Pool": ""},
            {"PoolID": "p", "Pool": "10.1.0.0/24", "Data": {"com.docker.network.gateway": "10.2.0.1/24"}},
        ),
    ],
)
def test_unusable_pool_is_noticed(request_: dict[str, Any], reply: dict[str, Any]) -> None:
    assert rules.check_request_pool(request_, reply)


def test_pool_with_a_gateway_is_accepted() -> None:
    data = {"com.docker.network.gateway": "10.1.0.1/24"}
    reply = {"PoolID": "p", "Pool": "10.1.0.0/24", "Data": data}
    assert rules.check_request_pool({"Pool": "10.1.0.0/24", "V6": False}, reply) == []


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("", ""),
        ("", None),
        ("", "10.1.0.2"),
        ("", "10.1.0.2/32"),
        ("", "10.2.0.2/24"),
        ("", "0.0.0.0/0"),
        ("", "router/24"),
        ("10.1.0.9", "10.1.0.2/24"),
    ],
)
def test_unusable_address_is_noticed(asked: str, answered: str | None) -> None:
    request = {"Address": asked}
    assert rules.check_request_address(request, {"Address": answered}, "10.1.0.0/24")


def test_address_with_prefix_length_zero_is_noticed() -> None:
    assert rules.check_request_address({"Address": ""}, {"Address": "10.1.0.2/0"}, "0.0.0.0/0")


@pytest.mark.parametrize("answered", ["10.1.0.2/24", "0.0.0.0/0"])
def test_address_in_an_unknown_subnet_is_accepted(answered: str) -> None:
    assert rules.check_request_address({"Address": ""}, {"Address": answered}, "0.0.0.0/0") == []


@pytest.mark.parametrize("asked", ["", "10.1.0.2"])
def test_address_of_its_pool_is_accepted(asked: str) -> None:
    assert rules.check_request_address({"Address": asked}, {"Address": "10.1.0.2/24"}, "10.1.0.0/24") == []


@pytest.mark.parametrize(
    ("given", "answered"),
    [
        ({"Address": "10.1.0.2/24"}, {"Address": "10.1.0.2/24"}),
        ({"Address": "10.1.0.2/24"}, {"Address": "10.1.0.3/24"}),
        ({"AddressIPv6": "fd00::2/64"}, {"AddressIPv6": "fd00::2/64"}),
        ({"MacAddress": "02:00:00:00:00:01"}, {"MacAddress": "02:00:00:00:00:01"}),
        ({}, {"MacAddress": "01:00:5e:00:00:01"}),
        ({}, {"MacAddress": "02-00-00-00-00-01"}),
        ({}, {"MacAddress": "02:00:00:00:00:zz"}),
        ({}, {"Address": "10.1.0.2"}),
        ({}, {"AddressIPv6": "10.1.0.2/24"}),
    ],
)
def test_rejected_endpoint_reply_is_noticed(given: dict[str, str], answered: dict[str, str]) -> None:
    assert rules.check_create_endpoint({"Interface": given}, {"Interface": answered})


def test_interface_must_be_an_object() -> None:
    assert rules.check_create_endpoint({"Interface": {}}, {"Interface": "eth0"})


@pytest.mark.parametrize(
    "reply",
    [
        {},
        {"Interface": None},
        {"Interface": {}},
        {"Interface": {"Address": "", "MacAddress": ""}},
        {"Interface": {"MacAddress": "02:00:00:00:00:01"}},
    ],
)
def test_endpoint_reply_that_only_adds_is_accepted(reply: dict[str, Any]) -> None:
    request = {"Interface": {"Address": "10.1.0.2/24", "AddressIPv6": "", "MacAddress": ""}}
    assert rules.check_create_endpoint(request, reply) == []


ADDRESSES = ("10.1.0.2/24", "fd00::2/64")


@pytest.mark.parametrize(
    "reply",
    [
        {"Gateway": "10.1.0.1"},
        {"InterfaceName": {"SrcName": "mvt0", "DstPrefix": ""}, "Gateway": "10.1.0.1"},
        {"InterfaceName": {"SrcName": "", "DstPrefix": "eth"}, "Gateway": "10.1.0.1"},
        {"InterfaceName": {"SrcName": "mvt0123456789abc", "DstPrefix": "eth"}, "Gateway": "10.1.0.1"},
        joined(Gateway="10.1.0.1/24"),
        joined(Gateway="router"),
        joined(Gateway="10.2.0.1"),
        joined(Gateway="fd00::1"),
        joined(GatewayIPv6="10.1.0.1"),
        joined(GatewayIPv6="fd01::1"),
        joined(),
        joined(Gateway="", DisableGatewayService=False),
        joined(DisableGatewayService="yes"),
        joined(Gateway="10.1.0.1", StaticRoutes=[{"Destination": "10.5.0.0/16", "RouteType": 2}]),
        joined(Gateway="10.1.0.1", StaticRoutes=[{"Destination": "10.5.0.0/16", "RouteType": 0}]),
        joined(Gateway="10.1.0.1", StaticRoutes=[{"RouteType": 1}]),
    ],
)
def test_unusable_join_reply_is_noticed(reply: dict[str, Any]) -> None:
    assert rules.check_join(reply, ADDRESSES, internal=False)


def test_gateway_in_an_internal_network_is_noticed() -> None:
    assert rules.check_join(joined(Gateway="10.1.0.1"), ADDRESSES, internal=True)


@pytest.mark.parametrize(
    ("reply", "addresses", "internal"),
    [
        (joined(Gateway="10.1.0.1", GatewayIPv6="fd00::1"), ADDRESSES, False),
        (joined(GatewayIPv6="fe80::1"), ADDRESSES, False),
        (joined(DisableGatewayService=True), ADDRESSES, False),
        (joined(), ADDRESSES, True),
        (joined(Gateway="192.168.1.1"), ("", ""), False),
        (joined(Gateway="192.168.1.1"), ("0.0.0.0/0",), False),
        (
            joined(Gateway="10.1.0.1", StaticRoutes=[{"Destination": "10.5.0.0/16", "RouteType": 1}]),
            ADDRESSES,
            False,
        ),
    ],
)
def test_usable_join_reply_is_accepted(
    reply: dict[str, Any], addresses: tuple[str, ...], internal: bool
) -> None:
    assert rules.check_join(reply, addresses, internal) == []


def test_operational_data_must_be_an_object() -> None:
    assert rules.check_endpoint_oper_info({}) == []
    assert rules.check_endpoint_oper_info({"Value": None}) == []
    assert rules.check_endpoint_oper_info({"Value": ["x"]})


@pytest.mark.parametrize("reply", [{}, {"Options": None}, {"Options": {"parent": "eth2"}}])
def test_option_lost_in_allocate_network_is_noticed(reply: dict[str, Any]) -> None:
    request = {"Options": {"parent": "eth1"}}
    assert rules.check_allocate_network(request, {"Options": {"parent": "eth1", "more": "x"}}) == []
    assert rules.check_allocate_network(request, reply)


@pytest.mark.parametrize(
    ("method", "request_", "reply", "around"),
    [
        ("Plugin.Activate", {}, {}, Surroundings()),
        ("NetworkDriver.GetCapabilities", {}, {}, Surroundings()),
        ("IpamDriver.GetCapabilities", {}, {"RequiresMACAddress": 1}, Surroundings()),
        ("IpamDriver.GetDefaultAddressSpaces", {}, {}, Surroundings()),
        ("NetworkDriver.GwAllocCheck", {}, {}, Surroundings()),
        ("IpamDriver.RequestPool", {}, {}, Surroundings()),
        ("IpamDriver.RequestAddress", {}, {"Address": "10.1.0.2/24"}, Surroundings(pool="10.2.0.0/24")),
        ("NetworkDriver.CreateEndpoint", {}, {"Interface": "eth0"}, Surroundings()),
        ("NetworkDriver.Join", {}, joined(Gateway="10.1.0.1"), Surroundings(addresses=("10.2.0.2/24",))),
        ("NetworkDriver.Join", {}, joined(Gateway="10.1.0.1"), Surroundings(internal=True)),
        ("NetworkDriver.EndpointOperInfo", {}, {"Value": 1}, Surroundings()),
        ("NetworkDriver.AllocateNetwork", {"Options": {"a": "b"}}, {}, Surroundings()),
        ("NetworkDriver.Leave", {}, {"Err": "boom"}, Surroundings()),
    ],
)
def test_each_method_is_held_to_its_own_rule(
    method: str, request_: dict[str, Any], reply: dict[str, Any], around: Surroundings
) -> None:
    assert rules.check_successful_reply(method, request_, reply, around)


def test_empty_success_is_enough_for_a_removal() -> None:
    assert rules.check_successful_reply("NetworkDriver.Leave", {}, {}, Surroundings()) == []
