"""Address management of our own: pools, ranges, reservations, and several networks on one subnet."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.lab.docker_host import DockerHost

NICS = 2
OURS = "--ipam-driver=macvlan-twisted"
SUBNET = ("--subnet=192.168.77.0/24", "--gateway=192.168.77.1")
ON_ETH1 = "--opt=parent=eth1"
EIGHT = "--ip-range=192.168.77.64/29"


def last_bytes(host: DockerHost, *names: str, network: str = "lan") -> list[int]:
    """Start containers one after the other, and return the last byte of the IPv4 address of each."""
    found = []
    for name in names:
        addresses = host.start(name, network=network).addresses()
        found += [int(each.partition("/")[0].rpartition(".")[2]) for each in addresses if "." in each]
    return found


def test_container_gets_both_families_from_the_range(docker_host: DockerHost) -> None:
    ipv6 = ("--ipv6", "--subnet=fd77::/64", "--gateway=fd77::1", "--ip-range=fd77::7:0/112")
    docker_host.create("lan", OURS, *SUBNET, "--ip-range=192.168.77.64/26", *ipv6, ON_ETH1)
    box = docker_host.start("box")
    assert box.addresses() == {"192.168.77.64/24", "fd77::7:0/64"}
    assert box.routers() == {"192.168.77.1", "fd77::1"}
    assert box.mac() == "7a:42:c0:a8:4d:40"
    for address in ("192.168.77.1", "fd77::1", "192.168.77.2", "fd77::2"):
        assert box.ping(address)
    static = docker_host.start("static", "--ip=192.168.77.200", "--ip6=fd77::200")
    assert static.addresses() == {"192.168.77.200/24", "fd77::200/64"}
    error = docker_host.start_refusal("--ip=192.168.77.200")
    assert "address 192.168.77.200" in error
    assert "in use" in error
    box.remove()
    static.remove()
    docker_host.plugin.stop()
    assert {(address, purpose) for _, address, purpose, _ in docker_host.rows()["addresses"]} == {
        ("192.168.77.1", "gateway"),
        ("fd77::1", "gateway"),
    }


@pytest.mark.plugin_arguments("--ip-range=192.168.77.64/26", "--ip-range=fd77::7:0/112")
def test_network_without_subnet_takes_the_lans(docker_host: DockerHost) -> None:
    docker_host.create("lan", OURS, ON_ETH1)
    docker_host.create("more", OURS, "--ipv6", ON_ETH1)
    docker_host.create("named", OURS, *SUBNET, ON_ETH1)
    boxes = [docker_host.start(f"on-{name}", network=name) for name in ("lan", "more", "named")]
    ipv4 = [f"192.168.77.{last}/24" for last in (64, 65, 66)]
    assert [box.addresses() for box in boxes] == [{ipv4[0]}, {ipv4[1], "fd77::7:0/64"}, {ipv4[2]}]
    assert [box.routers() - {"fd77::1"} for box in boxes] == [{"192.168.77.1"}] * 3
    assert "fd77::1" in boxes[1].routers()
    assert all(box.ping("192.168.77.1") for box in boxes)
    assert boxes[1].ping("fd77::1")
    assert boxes[1].ping("192.168.77.64")
    assert docker_host.lan.ping("neighbour", "192.168.77.65")
    error = docker_host.start_refusal("--ip=192.168.77.80")
    assert "user configured subnet" in error  # the engine's own rule, documented with the remedy --subnet


@pytest.mark.one_engine
@pytest.mark.plugin_arguments("--return-grace", "0")
def test_freed_address_is_reused_last(docker_host: DockerHost) -> None:
    docker_host.create("lan", OURS, *SUBNET, "--ip-range=192.168.77.64/30", ON_ETH1)
    assert last_bytes(docker_host, "first", "second") == [64, 65]
    docker_host.engine.docker("rm", "--force", "first")
    assert last_bytes(docker_host, "third") == [66]
    docker_host.plugin.stop()
    docker_host.plugin.start()  # whose turn it is, is on disk
    assert last_bytes(docker_host, "fourth", "fifth") == [67, 64]


@pytest.mark.one_engine
def test_full_pool_reports_usage_and_recovers(docker_host: DockerHost) -> None:
    reserved = ("--aux-address=printer=192.168.77.65",)
    docker_host.create("lan", OURS, *SUBNET, "--ip-range=192.168.77.64/30", *reserved, ON_ETH1)
    assert last_bytes(docker_host, "first", "second", "third") == [64, 66, 67]
    error = docker_host.start_refusal()
    assert "pool 192.168.77.0/24 (range 192.168.77.64/30) is exhausted" in error
    assert "4 of 4 addresses are allocated; " in error
    docker_host.engine.docker("rm", "--force", "second")
    assert last_bytes(docker_host, "fourth") == [66]


@pytest.mark.one_engine
@pytest.mark.plugin_arguments(
    "--ip-range=192.168.77.96/29", "--exclude=192.168.77.97-192.168.77.99", "--exclude=192.168.77.101"
)
def test_service_range_is_a_default_and_exclusions_always_hold(docker_host: DockerHost) -> None:
    docker_host.create("lan", OURS, *SUBNET, ON_ETH1)
    assert last_bytes(docker_host, "first", "second", "third", "fourth") == [96, 100, 102, 103]
    assert "4 of 8 addresses are allocated, 4 excluded" in docker_host.start_refusal()
    asked = docker_host.start("asked", "--ip=192.168.77.97")  # a user may know better
    assert asked.ping("192.168.77.1")
    docker_host.create("any", OURS, ON_ETH1)
    assert "is exhausted" in docker_host.start_refusal(network="any")


@pytest.mark.one_engine
def test_networks_on_one_subnet_share_the_gateway_only(docker_host: DockerHost) -> None:
    reserved = "--aux-address=printer=192.168.77.66"
    for name in ("lan", "more"):
        docker_host.create(name, OURS, *SUBNET, EIGHT, reserved, ON_ETH1)
    got = []
    for number, network in enumerate(("lan", "more", "lan", "more")):
        got += last_bytes(docker_host, f"box-{number}", network=network)
    assert got == [64, 65, 67, 68]
    error = docker_host.start_refusal("--ip=192.168.77.64", network="more")
    assert "address 192.168.77.64" in error
    assert "in use" in error
    # What the first network took is free with its end, and what the second one took is not.
    docker_host.engine.docker("rm", "--force", "box-0", "box-2")
    docker_host.engine.docker("network", "rm", "lan")
    assert docker_host.start("again", "--ip=192.168.77.64", network="more").ping("192.168.77.1")
    assert "gateway" in docker_host.start_refusal("--ip=192.168.77.1", network="more")
    assert "reserved" in docker_host.start_refusal("--ip=192.168.77.66", network="more")


@pytest.mark.one_engine
def test_networks_on_one_subnet_can_be_created_at_once(docker_host: DockerHost) -> None:
    reserved = [f"--aux-address=nas{last}=192.168.77.{last}" for last in (65, 66, 67, 68)]
    with ThreadPoolExecutor() as threads:
        made = [
            threads.submit(docker_host.create, f"lan-{number}", OURS, *SUBNET, *reserved, ON_ETH1)
            for number in range(8)
        ]
    for each in made:
        each.result()
    assert docker_host.start("box", "--ip=192.168.77.70", network="lan-0").ping("192.168.77.1")
    assert "192.168.77.70" in docker_host.start_refusal("--ip=192.168.77.70", network="lan-7")


@pytest.mark.one_engine
def test_overlapping_subnet_is_refused_unless_on_another_parent(docker_host: DockerHost) -> None:
    docker_host.create("lan", OURS, *SUBNET, ON_ETH1)
    words = (OURS, "--subnet=192.168.77.128/25", "--gateway=192.168.77.129")
    error = docker_host.refusal(*words, ON_ETH1)
    assert "subnet 192.168.77.128/25 overlaps 192.168.77.0/24, which is in use on parent eth1" in error
    docker_host.engine.docker("network", "rm", "lan")
    docker_host.create("lan", *words, ON_ETH1)
    assert docker_host.start("box").addresses() == {"192.168.77.130/25"}


@pytest.mark.one_engine
@pytest.mark.plugin_arguments("--conflict-detection=off")  # both NICs of the lab are on one LAN
def test_pools_of_two_parents_are_independent(docker_host: DockerHost) -> None:
    docker_host.create("lan", OURS, *SUBNET, EIGHT, ON_ETH1)
    other = ("--ipam-opt=parent=eth2", "--opt=parent=eth2")
    docker_host.create("more", OURS, "--subnet=192.168.77.0/25", "--gateway=192.168.77.1", EIGHT, *other)
    assert last_bytes(docker_host, "first") == [64]
    assert last_bytes(docker_host, "second", network="more") == [64]


@pytest.mark.one_engine
def test_wrong_ipam_options_are_refused_and_leave_nothing(docker_host: DockerHost) -> None:
    wrong = {
        ("--ipam-opt=parnet=eth1", *SUBNET): "parnet",
        ("--ipam-opt=parent=a/b", *SUBNET): "parent",
        ("--ipam-opt=parent=eth2",): "no IPv4 subnet is known for parent eth2",
        (
            "--subnet=192.168.77.0/24",
            "--gateway=192.168.77.0",
        ): "gateway address 192.168.77.0 is not a usable address",
        (
            "--subnet=192.168.77.0/24",
            "--gateway=192.168.77.255",
        ): "gateway address 192.168.77.255 is not a usable address",
        (*SUBNET, "--aux-address=me=192.168.77.1"): "address 192.168.77.1",
        (*SUBNET, "--aux-address=me=192.168.77.255"): "192.168.77.255 is not a usable address",
    }
    error = {words: docker_host.refusal(OURS, ON_ETH1, *words) for words in wrong}
    assert {words: text for words, text in error.items() if wrong[words] not in text} == {}
    docker_host.plugin.stop()
    assert not any(docker_host.rows().values())


@pytest.mark.one_engine
def test_addresses_of_a_failed_start_are_free_again(docker_host: DockerHost) -> None:
    ipv6 = ("--ipv6", "--subnet=fd77::/64", "--gateway=fd77::1", "--ip-range=fd77::7:0/127")
    docker_host.create("lan", OURS, *SUBNET, "--ip-range=192.168.77.64/30", *ipv6, ON_ETH1)
    docker_host.start("first")
    docker_host.start("second")
    assert "fd77::" in docker_host.start_refusal()  # by then IPv4 had given one, and the engine forgets it
    docker_host.engine.docker("rm", "--force", "first", "second")
    docker_host.engine.docker("network", "rm", "lan")
    docker_host.plugin.stop()
    assert docker_host.rows()["addresses"] == []
    docker_host.plugin.start()


@pytest.mark.engines("20.10", "28.5")
def test_builtin_driver_takes_addresses_from_our_ipam(docker_host: DockerHost) -> None:
    words = ("network", "create", "--driver=macvlan", OURS, *SUBNET, EIGHT, "--ipam-opt=parent=eth1", ON_ETH1)
    docker_host.engine.docker(*words, "builtin")
    static = docker_host.start("static", "--ip=192.168.77.70", network="builtin")
    # A MAC of its own, so that the clash of addresses is not hidden behind one of MACs.
    again = ("--ip=192.168.77.70", "--mac-address=02:00:00:00:00:70")
    assert "address 192.168.77.70" in docker_host.start_refusal(*again, network="builtin")
    docker_host.create("lan", OURS, *SUBNET, EIGHT, ON_ETH1)
    assert "address 192.168.77.70" in docker_host.start_refusal(*again, network="lan")
    static.remove()
    box, other = docker_host.start("box", network="builtin"), docker_host.start("other")
    assert box.addresses() == {"192.168.77.64/24"}
    assert box.routers() == {"192.168.77.1"}
    assert other.addresses() == {"192.168.77.65/24"}
    assert box.ping("192.168.77.65")
    box.remove()
    docker_host.engine.docker("network", "rm", "builtin")
