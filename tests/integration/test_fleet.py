"""Docker hosts with real engines on one LAN, and a real etcd, share one range of addresses."""

import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from macvlan_twisted.protocol.messages import LOCAL_ADDRESS_SPACE
from tests.integration.conftest import hosts_with_our_service, need
from tests.integration.containers import AT_ONCE, STATIONS, SUBNET
from tests.integration.raw_hosts import RawHost, at_once
from tests.lab import fleet as lab
from tests.lab.commands import wait_until
from tests.lab.docker_host import Container, DockerHost, plugin_error
from tests.lab.engine import Engine
from tests.lab.etcd import Cluster
from tests.lab.plugin import DEFAULTS, Plugin
from tests.lab.requirements import missing_for_etcd

EACH = 12
RESERVE = 7
"""Addresses that a host with such a range holds for its next containers."""
NETWORK = ("--ipam-driver=macvlan-twisted", *SUBNET, "--ip-range=192.168.77.128/25")
UNPROBED = ("--ipam-opt=conflict_detection=off",)
OUTSIDE = "192.168.77.99"
"""Not in the range: no host has claimed it ahead."""
Hosts = tuple[DockerHost, ...]

pytestmark = pytest.mark.one_engine


@pytest.fixture
def cluster(two_lasting_engines: tuple[Engine, Engine]) -> Iterator[Cluster]:
    """Run three members of etcd on the router."""
    need(missing_for_etcd())
    with Cluster(two_lasting_engines[0].lan, ("gateway",) * 3) as made:
        yield made


@pytest.fixture
def fleet(
    request: pytest.FixtureRequest, two_lasting_engines: tuple[Engine, Engine], cluster: Cluster
) -> Iterator[Hosts]:
    """Run our service on two hosts that share their addresses."""
    location = lab.location(cluster)
    with hosts_with_our_service(request, *two_lasting_engines, fleet=location) as hosts:
        yield hosts


def names_on(host: DockerHost, count: int) -> list[str]:
    return [f"{host.engine.place}-{number}" for number in range(count)]


def start(host: DockerHost, name: str, *words: str) -> str:
    """Run a container, and return its address."""
    return only_address(host.start(name, AT_ONCE, *words))


def only_address(container: Container) -> str:
    (found,) = container.addresses()
    return found.partition("/")[0]


def owned(cluster: Cluster, host: str, state: str) -> set[str]:
    """Return the addresses that a host has in a state, as etcd tells it."""
    return {
        address
        for address, each in lab.entries(cluster).items()
        if each.get("state") == state and each["owner"]["host"] == host
    }


def wait_for_reserve(cluster: Cluster, *hosts: DockerHost) -> None:
    for host in hosts:
        wait_until(lambda place=host.place: len(owned(cluster, place, "reserve")) == RESERVE, 10, "a reserve")  # type: ignore[misc]


def wait_for_log(host: DockerHost, text: str, times: int = 1) -> None:
    wait_until(lambda: host.plugin.log().count(text) >= times, 30, f"{text!r} in the log of {host.place}")


def test_hosts_use_different_addresses_without_probing(fleet: Hosts) -> None:
    at_once([partial(host.create, "lan", *NETWORK, *UNPROBED) for host in fleet])
    given = at_once([partial(start, host, name) for host in fleet for name in names_on(host, EACH)])
    assert len(set(given)) == 2 * EACH, f"handed out twice: {sorted(given)}"


def test_reserve_serves_a_host_that_is_cut_from_etcd(fleet: Hosts, cluster: Cluster) -> None:
    """etcd's packets do not arrive any more, of which nobody tells the host."""
    cut, other = fleet
    at_once([partial(host.create, "lan", *NETWORK) for host in fleet])
    wait_for_reserve(cluster, *fleet)
    reserve = owned(cluster, cut.place, "reserve")
    cut.lan.way("gateway", cut.place, "closed")
    try:
        given = [start(cut, name) for name in names_on(cut, RESERVE)]
        assert set(given) == reserve
        assert "no spare address in pool" in plugin_error(cut.start_refusal())
        assert start(other, "other") not in given
    finally:
        cut.lan.way("gateway", cut.place, "open")
    wait_for_log(cut, "fleet: etcd is available again")
    start(cut, "later")
    wait_until(lambda: set(given) <= owned(cluster, cut.place, "used"), 20, "what was used meanwhile in etcd")


def test_restarts_need_no_etcd(fleet: Hosts, cluster: Cluster) -> None:
    host, _ = fleet
    host.create("lan", *NETWORK)
    box = host.start("box", AT_ONCE)
    before = only_address(box), box.mac()
    cluster.stop()

    def as_before() -> bool:
        again = Container(host.engine, "box")
        return (only_address(again), again.mac()) == before

    host.engine.docker("restart", "box")
    assert as_before(), "after docker restart"
    host.plugin.stop()
    host.plugin.start()
    host.engine.docker("restart", "box")
    assert as_before(), "after a restart of the plugin"
    host.engine.stop()
    host.engine.start()
    host.engine.docker("start", "box")
    assert as_before(), "after a restart of the engine"
    start(host, "new")


@pytest.mark.plugin_arguments("--debug")
def test_containers_start_while_a_member_of_etcd_dies(fleet: Hosts, cluster: Cluster) -> None:
    at_once([partial(host.create, "lan", *NETWORK, *UNPROBED) for host in fleet])
    wait_for_reserve(cluster, *fleet)

    def kill_leader() -> None:
        time.sleep(0.5)
        cluster.leader.kill()

    killing = threading.Thread(target=kill_leader)
    killing.start()
    given = at_once([partial(start, host, name) for host in fleet for name in names_on(host, RESERVE)])
    killing.join()
    assert len(set(given)) == 2 * RESERVE, f"handed out twice: {sorted(given)}"
    for host in fleet:
        waits = [
            float(line.partition("answered in ")[2].split()[0])
            for line in host.plugin.log().splitlines()
            if "RequestAddress: answered in " in line
        ]
        assert len(waits) > RESERVE
        assert max(waits) < 10_000, (
            "a call waited for etcd"
        )  # nobody waits that long for one second on a busy machine


def test_container_moves_with_its_address_and_mac(fleet: Hosts, cluster: Cluster) -> None:
    first, second = fleet
    at_once([partial(host.create, "lan", *NETWORK) for host in fleet])
    box = first.start("box", AT_ONCE)
    before = only_address(box), box.mac()
    assert box.ping(STATIONS[1])  # so its address was seen on the LAN a moment ago
    box.remove()
    moved = second.start("box", AT_ONCE, f"--ip={before[0]}")
    assert (only_address(moved), moved.mac()) == before
    assert second.lan.ping("neighbour", before[0])
    assert lab.entries(cluster)[before[0]]["owner"]["host"] == second.place


def test_address_in_use_on_another_host_is_refused_by_name(fleet: Hosts, cluster: Cluster) -> None:
    first, second = fleet
    at_once([partial(host.create, "lan", *NETWORK, *UNPROBED) for host in fleet])
    address = start(first, "box")
    wait_until(lambda: lab.entries(cluster)[address].get("container") == "box", 20, "the name in etcd")
    refused = plugin_error(second.start_refusal(f"--ip={address}"))
    assert f"address {address} belongs to host {first.place} for container box" in refused


def test_restored_etcd_gets_back_what_it_lost(fleet: Hosts, cluster: Cluster, tmp_path: Path) -> None:
    first, second = fleet
    at_once([partial(host.create, "lan", *NETWORK, *UNPROBED) for host in fleet])
    old = start(first, "old")
    cluster.save(tmp_path / "snapshot")
    lost, disputed = start(second, "lost", f"--ip={OUTSIDE}"), "192.168.77.98"
    box = first.start("box", AT_ONCE, f"--ip={disputed}")
    first.plugin.stop()
    cluster.restore(tmp_path / "snapshot")
    wait_for_log(second, "fleet: connected as host", 2)
    # The first host, which is away, has no chance to object.
    other = second.start("other", AT_ONCE, f"--ip={disputed}")
    first.plugin.start()
    wait_for_log(first, f"address {disputed}: claimed by host {second.place}")
    wait_until(lambda: {old} <= owned(cluster, first.place, "used"), 20, "what the first host has")
    wait_until(
        lambda: {lost, disputed} <= owned(cluster, second.place, "used"), 20, "what the second host has"
    )
    assert only_address(box) == only_address(other) == disputed, "each host leaves its containers alone"
    box.remove()
    start(first, "next")
    assert disputed in owned(cluster, second.place, "used")


def test_second_host_of_one_name_claims_nothing(fleet: Hosts, cluster: Cluster) -> None:
    first, _ = fleet
    first.create("lan", *NETWORK)
    wait_for_reserve(cluster, first)
    before = lab.entries(cluster)
    arguments = (*DEFAULTS, "--fleet", lab.location(cluster), "--fleet-host", first.place)
    with Plugin(first.lan, place="neighbour", arguments=arguments) as twin:
        answer = twin.call(
            "IpamDriver.RequestPool",
            {"AddressSpace": LOCAL_ADDRESS_SPACE, "Pool": "192.168.77.0/24", "SubPool": "", "V6": False},
        )
        raw = RawHost(twin, answer["PoolID"])
        wait_until(lambda: "Err" in raw.ask() and "--fleet-host" in raw.ask()["Err"], 20, "a refusal")
        assert f"another host of the fleet is called '{first.place}'" in raw.ask()["Err"]
    assert lab.entries(cluster) == before
    start(first, "box")


@pytest.mark.short_grace_periods
def test_nothing_is_left_in_etcd_of_a_removed_network(fleet: Hosts, cluster: Cluster) -> None:
    at_once([partial(host.create, "lan", *NETWORK) for host in fleet])
    for host in fleet:
        for name in names_on(host, 2):
            start(host, name)
    assert set(lab.entries(cluster)["192.168.77.1"]) == {"holders"}
    for host in fleet:
        host.engine.clear()
    wait_until(lambda: lab.entries(cluster) == {}, 30, "an etcd without an address")
    assert [lab.rows(host.plugin.state_dir) for host in fleet] == [{}, {}]
    assert set(lab.hosts(cluster)) == {host.place for host in fleet}
