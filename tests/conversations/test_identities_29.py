"""Containers keep their identity by their names, which Engine 29 sends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


def test_recreated_container_keeps_address_and_mac(engine: Engine29) -> None:
    network = create(engine, identity="name")
    first, other = engine.run("web", network), engine.run("db", network)
    before = identity(first)
    engine.stop(first)
    engine.stop(other)
    engine.run("newcomer", network)
    assert identity(engine.run("web", network)) == before


NAMES = ("one", "two", "six")
Case = Callable[[Engine29, Network, ServiceUnderTest], None]


def restart(*names: str) -> Case:
    """Stop them all, then start them in this order: a restart of one, or of several at once, and a crash."""

    def case(engine: Engine29, network: Network, service: ServiceUnderTest) -> None:
        for name in names:
            engine.stop(engine.containers[name])
        for name in names:
            engine.run(name, network)

    return case


def restart_mixed(engine: Engine29, network: Network, service: ServiceUnderTest) -> None:
    """Starts and stops of several containers overlap."""
    engine.stop(engine.containers["one"])
    engine.stop(engine.containers["two"])
    engine.run("two", network)
    engine.stop(engine.containers["six"])
    engine.run("one", network)
    engine.run("six", network)


def start_later(engine: Engine29, network: Network, service: ServiceUnderTest) -> None:
    """Others come and go meanwhile, and the service restarts."""
    engine.stop(engine.containers["two"])
    for number in range(3):
        engine.stop(engine.run(f"other-{number}", network))
    service.stop()
    service.start()
    engine.run("two", network)


def reboot(engine: Engine29, network: Network, service: ServiceUnderTest) -> None:
    """All stop, and start in another order."""
    for name in NAMES:
        engine.stop(engine.containers[name])
    service.stop()
    service.start()
    for name in reversed(NAMES):
        engine.run(name, network)


def kill_engine(engine: Engine29, network: Network, service: ServiceUnderTest) -> None:
    """When it starts again it cleans up what was left, and then starts containers."""
    for name in NAMES:
        engine.sandboxes.destroy(engine.containers[name].endpoints[0].link)
        engine.containers[name].endpoints[0].has_link = False
    for name in NAMES:
        engine.stop(engine.containers[name])
    for name in reversed(NAMES):
        engine.run(name, network)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(restart("two"), id="restart-one"),
        pytest.param(restart("six", "one", "two"), id="restart-several"),
        pytest.param(restart_mixed, id="restart-mixed"),
        pytest.param(start_later, id="start-later"),
        pytest.param(reboot, id="reboot"),
        pytest.param(kill_engine, id="kill-engine"),
    ],
)
def test_every_name_keeps_address_and_mac(case: Case, engine: Engine29, service: ServiceUnderTest) -> None:
    """
    The column of engine 29 in docs/explanation/addresses. To the plugin, rm and run, compose restart, and compose up that
    recreates are a stop and a start under one name.
    """
    network = create(engine)
    before = {name: identity(engine.run(name, network)) for name in NAMES}
    case(engine, network, service)
    assert {name: identity(engine.containers[name]) for name in NAMES} == before


def test_both_families_return_with_the_name(engine: Engine29) -> None:
    network = create(engine, LAN, LAN_V6, identity="name")
    first = engine.run("web", network)
    before = identity(first)
    assert len(before[0]) == 2
    engine.stop(first)
    engine.run("newcomer", network)
    assert identity(engine.run("web", network)) == before


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_names_survive_the_service(how: str, engine: Engine29, service: ServiceUnderTest) -> None:
    network = create(engine, identity="name")
    first = engine.run("web", network)
    before = identity(first)
    engine.stop(first)
    getattr(service, how)()
    service.start()
    engine.run("newcomer", network)
    assert identity(engine.run("web", network)) == before


def test_new_name_gets_no_address_of_another_while_one_is_unused(engine: Engine29) -> None:
    network = create(engine, Subnet("10.9.0.0/29", gateway="10.9.0.1"))
    web = engine.run("web", network, ip="10.9.0.3")
    engine.stop(web)
    found = [engine.run(name, network) for name in ("a", "b", "c")]
    assert [identity(each)[0] for each in found] == [{f"10.9.0.{number}/29"} for number in (2, 4, 5)]
    engine.stop(found[0])
    assert identity(engine.run("web", network))[0] == {"10.9.0.3/29"}
    assert identity(engine.run("d", network))[0] == {"10.9.0.6/29"}
    assert identity(engine.run("e", network))[0] == {"10.9.0.2/29"}, "the range is exhausted"


@pytest.mark.parametrize("how", ["came back", "died"])
@pytest.mark.parametrize("ip", ["", "10.9.0.77"])
def test_former_life_that_was_never_deleted_gives_up_its_address(
    how: str, ip: str, engine: Engine29, service: ServiceUnderTest
) -> None:
    """The plugin was down when the container was removed; its link lies in the host, or is gone with its namespace."""
    network = create(engine)
    first = engine.run("web", network, ip=ip)
    before = identity(first)
    service.kill()
    if how == "died":
        engine.lose_containers()
    else:
        engine.rm_unanswered(first)
    service.start()
    assert identity(engine.run("newcomer", network))[0] != before[0]
    again = engine.run("web", network, ip=ip)
    assert identity(again) == before
    engine.stop(again)
    assert identity(engine.run("web", network)) == before, "it goes on as any other"


@pytest.mark.parametrize("restarts", [False, True])
def test_renamed_container_keeps_its_address_from_its_successor(
    restarts: bool, engine: Engine29, service: ServiceUnderTest
) -> None:
    network = create(engine)
    first = engine.run("web", network)
    engine.rename(first, "old")
    if restarts:
        service.kill()
        service.start()
    assert identity(engine.run("web", network))[0] != identity(first)[0]


def test_address_given_away_meanwhile_is_not_reclaimed(engine: Engine29) -> None:
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


def test_default_mac_contains_the_address(engine: Engine29) -> None:
    network = create(engine)
    first = engine.run("web", network)
    before = identity(first)
    (address,) = before[0]
    assert before[1] == derived(address)
    engine.stop(first)
    assert identity(engine.run("web", network)) == before, "the address is the name's all the same"


def test_random_identity_repeats_nothing(engine: Engine29) -> None:
    network = create(engine, identity="random")
    seen = []
    for _ in range(3):
        container = engine.run("web", network)
        seen.append(identity(container))
        engine.stop(container)
    assert len({mac for _, mac in seen}) == 3
    assert len({address for addresses, _ in seen for address in addresses}) == 3


def test_users_mac_takes_precedence_over_the_name(engine: Engine29) -> None:
    network = create(engine, identity="name")
    assert identity(engine.run("web", network, mac="02:00:00:00:00:17"))[1] == "02:00:00:00:00:17"


def test_container_can_be_in_two_networks_on_one_subnet(engine: Engine29) -> None:
    first, second = create(engine, identity="name"), create(engine, name="n2", identity="name")
    container = engine.run("web", first, second)
    assert len({each.mac for each in container.endpoints}) == 2


def test_removed_network_forgets_the_addresses_of_names(engine: Engine29) -> None:
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


def test_unknown_identity_is_refused(engine: Engine29) -> None:
    with pytest.raises(PluginRefused, match="identity"):
        create(engine, identity="container")


def test_identity_by_name_needs_an_engine_that_names(engine: Engine29) -> None:
    """With Docker's own address management the plugin gets no names."""
    with pytest.raises(PluginRefused, match="--ipam-opt identity=name"):
        engine.network_create("n1", LAN, options={"parent": "eth1", "identity": "name"})
