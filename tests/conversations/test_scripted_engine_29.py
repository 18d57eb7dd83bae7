"""Whole lives of networks and containers, with an engine that is as particular about replies as Docker 29.

The rollbacks are those of an engine for which something goes wrong at each step: first the plugin truly
refuses, then the engine pretends that it could not go on although the plugin had done its part.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from .address_ledger import Leftovers
from .engine_networks import AnyNetwork
from .scripted_engine import Engine29, Failure, Network, PluginRefused, StartFailed, Subnet
from .service_under_test import ServiceUnderTest

LAN = Subnet("10.9.0.0/24", gateway="10.9.0.1")
LAN_V6 = Subnet("fd00:9::/64", gateway="fd00:9::1", v6=True)
ON_ETH1 = {"parent": "eth1"}

START = ["CreateEndpoint", "Join", "ProgramExternalConnectivity", "EndpointOperInfo"]
STOP = ["RevokeExternalConnectivity", "Leave", "DeleteEndpoint"]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceUnderTest]:
    service = ServiceUnderTest(tmp_path)
    service.start()
    yield service
    service.kill()


@pytest.fixture
def engine(service: ServiceUnderTest) -> Iterator[Engine29]:
    routes: list[AnyNetwork] = [ip_network("192.0.2.0/24"), ip_network("2001:db8:2::/64")]
    engine = Engine29(service.socket_path, service.sandboxes, sleep=lambda _: None, host_routes=routes)
    yield engine
    engine.close()


def calls_since(engine: Engine29, mark: int) -> list[str]:
    return [method.partition(".")[2] for method in engine.plugin.calls[mark:]]


def assert_nothing_is_left(service: ServiceUnderTest) -> None:
    service.stop()
    assert service.leftovers() == Leftovers()
    assert service.errors_in_log() == []


def create(engine: Engine29, name: str = "n1", remote_ipam: bool = True) -> Network:
    return engine.network_create(name, LAN, options=ON_ETH1, remote_ipam=remote_ipam)


def test_container_lives_on_the_engines_addresses(engine: Engine29, service: ServiceUnderTest) -> None:
    network = create(engine, remote_ipam=False)
    mark = len(engine.plugin.calls)
    container = engine.run("c1", network)
    assert calls_since(engine, mark) == START
    mark = len(engine.plugin.calls)
    engine.stop(container)
    assert calls_since(engine, mark) == STOP
    engine.network_rm(network)
    assert_nothing_is_left(service)


def test_container_lives_on_our_addresses(engine: Engine29, service: ServiceUnderTest) -> None:
    network = create(engine)
    mark = len(engine.plugin.calls)
    container = engine.run("c1", network)
    assert calls_since(engine, mark) == ["RequestAddress", *START]
    mark = len(engine.plugin.calls)
    engine.stop(container)
    assert calls_since(engine, mark) == [*STOP, "ReleaseAddress"]
    engine.network_rm(network)
    assert_nothing_is_left(service)


def test_empty_network_holds_its_gateway_only(engine: Engine29, service: ServiceUnderTest) -> None:
    network = create(engine)
    containers = [engine.run(f"c{number}", network) for number in range(3)]
    with pytest.raises(StartFailed):
        engine.run("c4", network, pretend=Failure.JOIN)
    for container in containers:
        engine.stop(container)
    service.stop()
    left = service.leftovers()
    assert left.networks == {network.network_id}
    assert [address for _, address in left.addresses] == ["10.9.0.1"]
    assert (left.endpoints, left.links) == (frozenset(), frozenset())


def test_dual_stack_network_returns_all_addresses(engine: Engine29, service: ServiceUnderTest) -> None:
    subnet = Subnet("10.9.0.0/24", "10.9.0.1", "10.9.0.128/25", {"host": "10.9.0.130", "printer": "10.9.0.6"})
    network = engine.network_create("n1", subnet, LAN_V6, options=ON_ETH1, remote_ipam=True)
    containers = [engine.run(f"c{number}", network) for number in range(3)]
    addresses = [text for each in containers for _, text in each.endpoints[0].addresses]
    assert len(set(addresses)) == 6
    assert not {"10.9.0.130/24", "10.9.0.6/24"} & set(addresses)
    for container in containers:
        engine.stop(container)
    engine.network_rm(network)
    assert_nothing_is_left(service)


def test_network_without_subnet_settles_in_one_request(engine: Engine29, service: ServiceUnderTest) -> None:
    network = engine.network_create("n1", options=ON_ETH1, remote_ipam=True)
    container = engine.run("c1", network)
    assert container.endpoints[0].gateway == "192.0.2.1"
    engine.stop(container)
    engine.network_rm(network)
    assert_nothing_is_left(service)


def test_networks_on_one_subnet_hand_out_no_address_twice(
    engine: Engine29, service: ServiceUnderTest
) -> None:
    networks = [create(engine, "n1"), create(engine, "n2")]
    containers = [engine.run(f"c{number}", networks[number % 2]) for number in range(6)]
    addresses = [text for each in containers for _, text in each.endpoints[0].addresses]
    assert len(set(addresses)) == 6
    for container in containers:
        engine.stop(container)
    for network in networks:
        engine.network_rm(network)
    assert_nothing_is_left(service)


def test_internal_network_gets_no_gateway(engine: Engine29, service: ServiceUnderTest) -> None:
    network = engine.network_create("n1", LAN, options=ON_ETH1, internal=True)
    mark = len(engine.plugin.calls)
    container = engine.run("c1", network)
    assert "ProgramExternalConnectivity" not in calls_since(engine, mark)
    engine.stop(container)
    engine.network_rm(network)
    assert_nothing_is_left(service)


def test_network_without_gateway_gets_no_second_interface(
    engine: Engine29, service: ServiceUnderTest
) -> None:
    network = engine.network_create("n1", Subnet("10.9.0.0/24"), options=ON_ETH1)
    assert network.pools[0].gateway is None, "the engine was to make up no router"
    container = engine.run("c1", network)
    engine.stop(container)
    engine.network_rm(network)
    assert_nothing_is_left(service)


def test_default_gateway_moves_between_networks(engine: Engine29, service: ServiceUnderTest) -> None:
    first = create(engine, "zz")
    better = engine.network_create("aa", Subnet("10.8.0.0/24", "10.8.0.1"), options={"parent": "eth2"})
    mark = len(engine.plugin.calls)
    container = engine.run("c1", first, better)
    assert calls_since(engine, mark)[-4:] == [
        "RevokeExternalConnectivity",
        "ProgramExternalConnectivity",
        "EndpointOperInfo",
        "EndpointOperInfo",
    ]
    engine.disconnect(container, container.endpoints[0])
    engine.stop(container)
    engine.network_rm(first)
    engine.network_rm(better)
    assert_nothing_is_left(service)


def test_users_mac_is_used_and_not_echoed(engine: Engine29, service: ServiceUnderTest) -> None:
    network = create(engine)
    container = engine.run("c1", network, mac="02:aa:bb:cc:dd:01")
    assert container.endpoints[0].mac == "02:aa:bb:cc:dd:01"
    engine.stop(container)
    engine.network_rm(network)
    assert_nothing_is_left(service)


# Rollback, where the plugin truly refuses


def test_refused_network_leaves_nothing(engine: Engine29, service: ServiceUnderTest) -> None:
    with pytest.raises(PluginRefused):
        engine.network_create("n1", LAN, LAN_V6, options={"parent": "nosuch"}, remote_ipam=True)
    releases = ["ReleaseAddress", "ReleasePool"]
    assert calls_since(engine, 0)[-5:] == ["CreateNetwork", *releases, *releases]
    assert_nothing_is_left(service)


def test_refused_second_pool_leaves_nothing(engine: Engine29, service: ServiceUnderTest) -> None:
    bad_range = Subnet("10.10.0.0/24", gateway="10.10.0.1", ip_range="10.11.0.0/25")
    with pytest.raises(PluginRefused):
        engine.network_create("n1", LAN, bad_range, options=ON_ETH1, remote_ipam=True)
    assert calls_since(engine, 0)[-2:] == ["RequestPool", "ReleasePool"]
    assert_nothing_is_left(service)


def test_refused_v6_pool_leaves_nothing(engine: Engine29, service: ServiceUnderTest) -> None:
    bad_range = Subnet("fd00:9::/64", gateway="fd00:9::1", ip_range="fd00:10::/80", v6=True)
    with pytest.raises(PluginRefused):
        engine.network_create("n1", LAN, bad_range, options=ON_ETH1, remote_ipam=True)
    assert calls_since(engine, 0)[-3:] == ["RequestPool", "ReleaseAddress", "ReleasePool"]
    assert_nothing_is_left(service)


def test_refused_gateway_leaves_nothing(engine: Engine29, service: ServiceUnderTest) -> None:
    outside = Subnet("10.9.0.0/24", gateway="10.77.0.1")
    with pytest.raises(PluginRefused):
        engine.network_create("n1", outside, options=ON_ETH1, remote_ipam=True)
    assert calls_since(engine, 0)[-2:] == ["RequestAddress", "ReleasePool"]
    assert_nothing_is_left(service)


def test_refused_auxiliary_address_leaves_nothing(engine: Engine29, service: ServiceUnderTest) -> None:
    network = create(engine)
    holder = engine.run("c1", network, ip="10.9.0.9")
    clash = Subnet("10.9.0.0/24", gateway="10.9.0.1", auxiliary={"host": "10.9.0.9"})
    with pytest.raises(PluginRefused):
        engine.network_create("n2", clash, options=ON_ETH1, remote_ipam=True)
    assert calls_since(engine, 0)[-3:] == ["RequestAddress", "RequestAddress", "ReleasePool"]
    engine.stop(holder)
    engine.network_rm(network)
    assert_nothing_is_left(service)


def test_address_in_use_is_refused(engine: Engine29, service: ServiceUnderTest) -> None:
    network = create(engine)
    holder = engine.run("c1", network, ip="10.9.0.77")
    mark = len(engine.plugin.calls)
    with pytest.raises(StartFailed):
        engine.run("c2", network, ip="10.9.0.77")
    assert calls_since(engine, mark) == ["RequestAddress"]
    engine.stop(holder)
    engine.stop(engine.run("c2", network, ip="10.9.0.77"))
    engine.network_rm(network)
    assert_nothing_is_left(service)


def test_refused_endpoint_leaves_nothing(engine: Engine29, service: ServiceUnderTest) -> None:
    network = create(engine)
    holder = engine.run("c1", network, mac="02:aa:bb:cc:dd:01")
    mark = len(engine.plugin.calls)
    with pytest.raises(StartFailed):
        engine.run("c2", network, mac="02:aa:bb:cc:dd:01")
    assert calls_since(engine, mark) == ["RequestAddress", "CreateEndpoint", "ReleaseAddress"]
    engine.stop(holder)
    engine.network_rm(network)
    assert_nothing_is_left(service)


# Rollback, where the engine could not go on


@pytest.mark.parametrize(
    ("failure", "rollback"),
    [
        (Failure.CREATE_ENDPOINT_REPLY_UNUSABLE, ["DeleteEndpoint", "ReleaseAddress"]),
        (Failure.JOIN, ["Leave", "DeleteEndpoint", "ReleaseAddress"]),
        (Failure.JOIN_REPLY_UNUSABLE, ["Leave", "Leave", "DeleteEndpoint", "ReleaseAddress"]),
        (Failure.MOVING_THE_LINK, ["Leave", "Leave", "DeleteEndpoint", "ReleaseAddress"]),
        (Failure.PROGRAM_EXTERNAL_CONNECTIVITY, ["Leave", "Leave", "DeleteEndpoint", "ReleaseAddress"]),
    ],
)
def test_rolled_back_start_leaves_nothing(
    failure: Failure, rollback: list[str], engine: Engine29, service: ServiceUnderTest
) -> None:
    network = create(engine)
    mark = len(engine.plugin.calls)
    with pytest.raises(StartFailed):
        engine.run("c1", network, ip="10.9.0.5", pretend=failure)
    assert calls_since(engine, mark)[-len(rollback) :] == rollback
    engine.stop(engine.run("c1", network, ip="10.9.0.5"))
    engine.network_rm(network)
    assert_nothing_is_left(service)


def test_failed_second_network_rolls_back_the_first_endpoint(
    engine: Engine29, service: ServiceUnderTest
) -> None:
    first = create(engine, "aa")
    second = engine.network_create("bb", Subnet("10.8.0.0/24", "10.8.0.1"), options={"parent": "eth2"})
    container = engine.run("c1", first)
    with pytest.raises(StartFailed):
        engine.connect(container, second, pretend=Failure.JOIN)
    engine.stop(container)
    engine.network_rm(second)
    engine.network_rm(first)
    assert_nothing_is_left(service)


# Restarts


def test_live_restored_container_stops_without_revoke(engine: Engine29, service: ServiceUnderTest) -> None:
    network = create(engine)
    container = engine.run("c1", network)
    mark = len(engine.plugin.calls)
    engine.restart(live_restore=True)
    assert calls_since(engine, mark) == ["Activate", "GetCapabilities", "GetCapabilities", "EndpointOperInfo"]
    mark = len(engine.plugin.calls)
    engine.stop(container)
    assert calls_since(engine, mark) == ["Leave", "DeleteEndpoint", "ReleaseAddress"]
    engine.network_rm(network)
    assert_nothing_is_left(service)


def test_crashed_engine_can_delete_endpoints_without_links(
    engine: Engine29, service: ServiceUnderTest
) -> None:
    network = create(engine)
    engine.run("c1", network)
    engine.run("c2", network)
    mark = len(engine.plugin.calls)
    engine.crash()
    assert calls_since(engine, mark)[3:] == ["Leave", "DeleteEndpoint", "ReleaseAddress"] * 2
    engine.network_rm(network)
    assert_nothing_is_left(service)


@pytest.mark.parametrize("remote_ipam", [False, True])
def test_forgotten_containers_do_not_block_new_ones(
    remote_ipam: bool, engine: Engine29, service: ServiceUnderTest
) -> None:
    network = create(engine, remote_ipam=remote_ipam)
    engine.run("c1", network)
    engine.run("c2", network, mac="02:aa:bb:cc:dd:01")
    engine.lose_containers()
    for pool in network.pools:
        if not remote_ipam:  # The engine's own IPAM knows that nobody uses them; the plugin's is never told.
            pool.release("10.9.0.2")
            pool.release("10.9.0.3")
    engine.stop(engine.run("c1", network))
    engine.stop(engine.run("c2", network, mac="02:aa:bb:cc:dd:01"))
    engine.network_rm(network)
    assert_nothing_is_left(service)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_restarted_service_continues_between_calls(
    how: str, engine: Engine29, service: ServiceUnderTest
) -> None:
    network = create(engine)
    container = engine.run("c1", network)
    getattr(service, how)()
    service.start()
    other = engine.run("c2", network)
    assert other.endpoints[0].addresses != container.endpoints[0].addresses
    getattr(service, how)()
    service.start()
    engine.stop(container)
    engine.stop(other)
    engine.network_rm(network)
    assert_nothing_is_left(service)
