"""What the containers' names, which Engine 29 tells, are good for: an identity that lasts."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_interface
from pathlib import Path

import pytest

from .scripted_engine import Container, Engine29, Network, PluginRefused, Subnet
from .service_under_test import ServiceUnderTest

LAN = Subnet("10.9.0.0/24", gateway="10.9.0.1")
LAN_V6 = Subnet("fd00:9::/64", gateway="fd00:9::1", v6=True)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceUnderTest]:
    service = ServiceUnderTest(tmp_path)
    service.start()
    yield service
    service.stop()
    assert service.errors_in_log() == []


@pytest.fixture
def engine(service: ServiceUnderTest) -> Iterator[Engine29]:
    engine = Engine29(service.socket_path, service.sandboxes, sleep=lambda _: None)
    yield engine
    engine.close()


def create(engine: Engine29, *subnets: Subnet, name: str = "n1", **options: str) -> Network:
    asked = subnets or (LAN,)
    on_eth1 = {"parent": "eth1"}
    return engine.network_create(name, *asked, options=on_eth1, remote_ipam=True, ipam_options=options)


def identity(container: Container) -> tuple[set[str], str]:
    """The addresses and the MAC of a container in its first network."""
    (endpoint,) = container.endpoints
    return {text for _, text in endpoint.addresses}, endpoint.mac


def derived(address: str) -> str:
    """The MAC that is made of an IPv4 address."""
    return f"7a:42:{ip_interface(address).ip.packed.hex(':')}"


def test_a_container_that_is_made_again_under_its_name_is_another_one_to_the_lan(engine: Engine29) -> None:
    network = create(engine, identity="name")
    first, other = engine.run("web", network), engine.run("db", network)
    before = identity(first)
    engine.stop(first)
    engine.stop(other)
    engine.run("newcomer", network)
    assert identity(engine.run("web", network)) == before


def test_only_one_of_two_families_comes_again(engine: Engine29) -> None:
    network = create(engine, LAN, LAN_V6, identity="name")
    first = engine.run("web", network)
    before = identity(first)
    assert len(before[0]) == 2
    engine.stop(first)
    engine.run("newcomer", network)
    assert identity(engine.run("web", network)) == before


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_the_service_forgets_names_with_its_process(
    how: str, engine: Engine29, service: ServiceUnderTest
) -> None:
    network = create(engine, identity="name")
    first = engine.run("web", network)
    before = identity(first)
    engine.stop(first)
    getattr(service, how)()
    service.start()
    engine.run("newcomer", network)
    assert identity(engine.run("web", network)) == before


def test_a_name_takes_the_address_of_who_was_given_it_meanwhile(engine: Engine29) -> None:
    network = create(engine, identity="name")
    first = engine.run("web", network)
    (address,), mac = identity(first)
    engine.stop(first)
    holder = engine.run("holder", network, ip=address.partition("/")[0])
    assert identity(holder)[0] == {address}
    assert identity(holder)[1] != mac
    again = engine.run("web", network)
    assert identity(again)[0] != {address}
    assert identity(again)[1] == mac, "the MAC is the name's, whatever the address"


def test_by_default_the_mac_is_not_made_of_the_address(engine: Engine29) -> None:
    network = create(engine)
    first = engine.run("web", network)
    before = identity(first)
    (address,) = before[0]
    assert before[1] == derived(address)
    engine.stop(first)
    assert identity(engine.run("web", network)) == before, "the address is the name's all the same"


def test_by_chance_something_comes_again(engine: Engine29) -> None:
    network = create(engine, identity="random")
    seen = []
    for _ in range(3):
        container = engine.run("web", network)
        seen.append(identity(container))
        engine.stop(container)
    assert len({mac for _, mac in seen}) == 3
    assert len({address for addresses, _ in seen for address in addresses}) == 3


def test_a_mac_of_the_user_gives_way_to_the_names(engine: Engine29) -> None:
    network = create(engine, identity="name")
    assert identity(engine.run("web", network, mac="02:00:00:00:00:17"))[1] == "02:00:00:00:00:17"


def test_one_container_cannot_be_in_two_networks_on_one_subnet(engine: Engine29) -> None:
    first, second = create(engine, identity="name"), create(engine, name="n2", identity="name")
    container = engine.run("web", first, second)
    assert len({each.mac for each in container.endpoints}) == 2


def test_a_network_that_was_removed_leaves_its_names_to_the_next_one(engine: Engine29) -> None:
    network = create(engine, identity="name")
    engine.stop(engine.run("other", network))
    container = engine.run("web", network)
    addresses, mac = identity(container)
    engine.stop(container)
    engine.network_rm(network)
    network = create(engine, identity="name")
    again = identity(engine.run("web", network))
    assert again[0] != addresses, "begins anew"
    assert again[1] == mac


def test_an_unknown_identity_is_taken_for_the_default(engine: Engine29) -> None:
    with pytest.raises(PluginRefused, match="identity"):
        create(engine, identity="container")


def test_where_names_are_not_told_an_identity_by_name_is_promised(engine: Engine29) -> None:
    """With Docker's own address management the plugin does not hear any."""
    with pytest.raises(PluginRefused, match="--ipam-opt identity=name"):
        engine.network_create("n1", LAN, options={"parent": "eth1", "identity": "name"})
