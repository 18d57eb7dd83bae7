"""Whole lives of networks and containers, with an engine that is as particular about replies as Docker 29.

The rollbacks are those of an engine for which something goes wrong at each step: first the plugin truly
refuses, then the engine pretends that it could not go on although the plugin had done its part.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from .address_ledger import Leftovers
from .engine_networks import AnyNetwork
from .scripted_engine import Engine29, Failure, Network, PluginRefused, StartFailed, Subnet
from .service_under_test import ServiceUnderTest

LAN = Subnet("10.9.0.0/24", gateway="10.9.0.1")
LAN_V6 = Subnet("fd00:9::/64", gateway="fd00:9::1", v6=True)
ON_ETH1 = {"parent": "eth1"}
RESERVED = Subnet("10.9.0.0/24", "10.9.0.1", "10.9.0.128/25", {"host": "10.9.0.130", "printer": "10.9.0.6"})
MAC = "02:aa:bb:cc:dd:01"


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


@pytest.mark.parametrize(
    ("subnets", "how"),
    [
        pytest.param((LAN,), {}, id="engine's ipam"),
        pytest.param((LAN,), {"remote_ipam": True}, id="our ipam"),
        pytest.param((RESERVED, LAN_V6), {"remote_ipam": True}, id="dual stack"),
        pytest.param((), {"remote_ipam": True}, id="no subnet"),
        pytest.param((LAN,), {"internal": True}, id="internal"),
        pytest.param((Subnet("10.9.0.0/24"),), {}, id="no gateway"),
    ],
)
def test_containers_live_and_leave_nothing(
    subnets: tuple[Subnet, ...], how: dict[str, Any], engine: Engine29, service: ServiceUnderTest
) -> None:
    """The engine insists on replies that it can use: no gateway where it is internal, no MAC that it named itself."""
    network = engine.network_create("n1", *subnets, options=ON_ETH1, **how)
    containers = [engine.run(f"c{number}", network) for number in range(3)]
    containers.append(engine.run("c3", network, mac=MAC))
    assert containers[3].endpoints[0].mac == MAC
    addresses = [text for each in containers for _, text in each.endpoints[0].addresses]
    assert len(set(addresses)) == len(addresses)
    assert not {f"{each}/24" for each in RESERVED.auxiliary.values()} & set(addresses)
    for container in containers:
        engine.stop(container)
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


# Rollback, where the plugin refuses


RELEASES = ["ReleaseAddress", "ReleasePool"]
BAD_RANGE = Subnet("10.10.0.0/24", gateway="10.10.0.1", ip_range="10.11.0.0/25")
BAD_RANGE_V6 = Subnet("fd00:9::/64", gateway="fd00:9::1", ip_range="fd00:10::/80", v6=True)


@pytest.mark.parametrize(
    ("subnets", "parent", "last_calls"),
    [
        pytest.param((LAN, LAN_V6), "nosuch", ["CreateNetwork", *RELEASES, *RELEASES], id="network"),
        pytest.param((LAN, BAD_RANGE), "eth1", ["RequestPool", "ReleasePool"], id="second pool"),
        pytest.param((LAN, BAD_RANGE_V6), "eth1", ["RequestPool", *RELEASES], id="IPv6 pool"),
        pytest.param(
            (Subnet("10.9.0.0/24", gateway="10.77.0.1"),),
            "eth1",
            ["RequestAddress", "ReleasePool"],
            id="gateway",
        ),
    ],
)
def test_refused_network_leaves_nothing(
    subnets: tuple[Subnet, ...],
    parent: str,
    last_calls: list[str],
    engine: Engine29,
    service: ServiceUnderTest,
) -> None:
    """Engines do not release all that they got, and do not call DeleteNetwork."""
    with pytest.raises(PluginRefused):
        engine.network_create("n1", *subnets, options={"parent": parent}, remote_ipam=True)
    assert calls_since(engine, 0)[-len(last_calls) :] == last_calls
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


@pytest.mark.parametrize(
    ("how", "calls"),
    [
        ({"ip": "10.9.0.77"}, ["RequestAddress"]),
        ({"mac": MAC}, ["RequestAddress", "CreateEndpoint", "ReleaseAddress"]),
    ],
    ids=["address", "mac"],
)
def test_refused_start_leaves_nothing(
    how: dict[str, Any], calls: list[str], engine: Engine29, service: ServiceUnderTest
) -> None:
    """What is in use is refused, and stays its holder's. Engines do not call DeleteEndpoint."""
    network = create(engine)
    holder = engine.run("c1", network, **how)
    mark = len(engine.plugin.calls)
    with pytest.raises(StartFailed):
        engine.run("c2", network, **how)
    assert calls_since(engine, mark) == calls
    engine.stop(holder)
    engine.stop(engine.run("c2", network, **how))
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
