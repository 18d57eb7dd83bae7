"""Addresses in use on the LAN are not handed out, with any address management."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.lab.commands import run, wait_until
from tests.lab.docker_host import DockerHost, plugin_error
from tests.lab.frames import arp_announcement, arp_probe, solicitation

NICS = 2
PART, PART_V6 = "192.168.77.64/26", "fd77::7:0/112"
IPV4 = ("--subnet=192.168.77.0/24", "--gateway=192.168.77.1", f"--ip-range={PART}")
IPV6 = ("--ipv6", "--subnet=fd77::/64", "--gateway=fd77::1", f"--ip-range={PART_V6}")
ON_ETH1 = "--opt=parent=eth1"
OURS = "--ipam-driver=macvlan-twisted"
NEXT = [f"192.168.77.{number}" for number in range(64, 69)]
STRANGER = "02:00:00:00:00:55"


def conflicts(host: DockerHost) -> dict[str, dict[str, str]]:
    """Return what state says of others, by address; the plugin must be stopped."""
    rows = [json.loads(document) for _, document, _ in host.rows()["conflicts"]]
    return {row["address"]: row for row in rows}


def is_in_use(
    stderr: str,
    address: str,
    mac: str,
    *,
    nic: str = "eth1",
    remedy: str = "use another --ip, or change the address of that host",
) -> bool:
    """Say whether the docker command has printed that a neighbour has the address, and the remedy."""
    how = "answers for it|claimed it a moment ago|took it while it was held for a container"
    expected = rf"address {address} is in use on {nic} by MAC {mac}, which ({how}): {remedy}"
    return re.fullmatch(expected, plugin_error(stderr)) is not None


@contextmanager
def neighbour_has(host: DockerHost, *addresses: str) -> Iterator[str]:
    """Give addresses to the neighbour for a while, and tell its MAC."""
    with_length = [f"{each}/{64 if ':' in each else 24}" for each in addresses]
    for each in with_length:
        host.lan.add_address("neighbour", each)
    try:
        yield host.lan.mac_of("neighbour")
    finally:
        for each in with_length:
            host.lan.remove_address("neighbour", each)


def test_neighbours_addresses_are_skipped(docker_host: DockerHost) -> None:
    six = [f"fd77::7:{number}" for number in range(3)]
    with neighbour_has(docker_host, *NEXT, *six) as mac:
        docker_host.create("lan", OURS, *IPV4, *IPV6, ON_ETH1)
        first, second = docker_host.start("first"), docker_host.start("second")
        assert first.addresses() == {"192.168.77.69/24", "fd77::7:3/64"}
        assert second.addresses() == {"192.168.77.70/24", "fd77::7:4/64"}
        for address in ("192.168.77.64", "fd77::7:1", "192.168.77.1"):
            assert first.ping(address)
        docker_host.plugin.stop()
        found = conflicts(docker_host)
        assert set(found) == {*NEXT, *six}
        assert {row["mac"] for row in found.values()} == {mac}
        docker_host.plugin.start()
        assert docker_host.start("third").addresses() == {"192.168.77.71/24", "fd77::7:5/64"}


def test_addresses_taken_silently_after_the_probe_are_skipped(docker_host: DockerHost) -> None:
    """Linux announces no IPv4 address that it is given."""
    docker_host.create("lan", OURS, *IPV4, ON_ETH1)
    assert docker_host.start("first").addresses() == {f"{NEXT[0]}/24"}
    with neighbour_has(docker_host, *NEXT[1:]) as mac:
        assert docker_host.start("second").addresses() == {"192.168.77.69/24"}
        assert is_in_use(docker_host.start_refusal(f"--ip={NEXT[1]}"), NEXT[1], mac)
        docker_host.engine.docker("rm", "--force", "first")
        with neighbour_has(docker_host, NEXT[0]):  # a moment after its container has left it
            assert is_in_use(docker_host.start_refusal(f"--ip={NEXT[0]}"), NEXT[0], mac)


def test_named_address_of_a_neighbour_is_refused_with_its_mac(docker_host: DockerHost) -> None:
    with neighbour_has(docker_host, "192.168.77.80", "fd77::80") as mac:
        docker_host.create("lan", OURS, *IPV4, *IPV6, ON_ETH1)
        for words in (("--ip=192.168.77.80",), ("--ip6=fd77::80",)):
            error = docker_host.start_refusal(*words)
            assert is_in_use(error, words[0].partition("=")[2], mac), error
    box = docker_host.start("box", "--ip=192.168.77.81", "--ip6=fd77::81")
    assert box.addresses() == {"192.168.77.81/24", "fd77::81/64"}


def test_neighbours_address_is_refused_with_docker_ipam(docker_host: DockerHost) -> None:
    docker_host.create("lan", *IPV4, *IPV6, ON_ETH1)
    with neighbour_has(docker_host, "192.168.77.80", "fd77::80") as mac:
        for words in (("--ip=192.168.77.80",), ("--ip6=fd77::80",)):
            error = docker_host.start_refusal(*words)
            remedy = (
                "reserve it with --aux-address, or give the network an --ip-range that is not used by others"
            )
            assert is_in_use(error, words[0].partition("=")[2], mac, remedy=remedy), error
    assert not [name for name in docker_host.links() if name.startswith("mvt")]
    docker_host.plugin.stop()
    rows = docker_host.rows()
    assert rows["endpoints"] == []
    docker_host.plugin.start()


@pytest.mark.engines("28.5")
def test_address_of_a_builtin_driver_container_is_skipped(docker_host: DockerHost) -> None:
    builtin = ("--driver=macvlan", "--subnet=192.168.77.64/29", ON_ETH1)
    docker_host.engine.docker("network", "create", *builtin, "builtin")
    sibling = docker_host.start("sibling", "--ip=192.168.77.66", network="builtin")
    assert_is_skipped(docker_host)
    assert sibling.addresses() == {"192.168.77.66/29"}


@pytest.mark.one_engine
def test_address_of_a_foreign_macvlan_sibling_is_skipped(docker_host: DockerHost) -> None:
    host, namespace = docker_host.lan.namespace("host"), f"{docker_host.lan.tag}-sibling"
    make = ("link", "add", "sibling", "link", "eth1", "type", "macvlan", "mode", "bridge")
    run("ip", "netns", "add", namespace)
    try:
        run("ip", "-netns", host, *make)
        run("ip", "-netns", host, "link", "set", "sibling", "netns", namespace)
        run("ip", "-netns", namespace, "address", "add", "192.168.77.66/24", "dev", "sibling")
        run("ip", "-netns", namespace, "link", "set", "sibling", "up")
        assert_is_skipped(docker_host)
    finally:
        run("ip", "netns", "delete", namespace)


@pytest.mark.one_engine
def test_address_of_the_host_on_another_link_is_skipped(docker_host: DockerHost) -> None:
    docker_host.lan.add_address("host", "192.168.77.66/32", nic="lo")
    try:
        assert_is_skipped(docker_host)
    finally:
        docker_host.lan.remove_address("host", "192.168.77.66/32", nic="lo")


def assert_is_skipped(host: DockerHost) -> None:
    """192.168.77.66 is in use: it is neither picked nor given on request."""
    host.create("lan", OURS, *IPV4, ON_ETH1, "--ipam-opt=parent=eth1")
    boxes = [host.start(f"box-{number}") for number in range(3)]
    expected = [{f"192.168.77.{number}/24"} for number in (64, 65, 67)]
    assert [box.addresses() for box in boxes] == expected
    assert "192.168.77.66 is in use on eth1" in host.start_refusal("--ip=192.168.77.66")


@pytest.mark.one_engine
def test_gateway_and_auxiliary_address_may_answer(docker_host: DockerHost) -> None:
    for number, ipam in enumerate(((), (OURS,))):
        words = ("--aux-address=neighbour=192.168.77.2", "--subnet=192.168.77.0/24", "--gateway=192.168.77.1")
        docker_host.create(f"lan-{number}", *ipam, *words, f"--ip-range={PART}", ON_ETH1)
        assert docker_host.start(f"box-{number}", network=f"lan-{number}").ping("192.168.77.2")
        docker_host.engine.docker("rm", "--force", f"box-{number}")
        docker_host.engine.docker("network", "rm", f"lan-{number}")


@pytest.mark.one_engine
@pytest.mark.parametrize("ipam", [(), (OURS,)], ids=["engine", "ours"])
def test_later_conflict_is_logged_once(docker_host: DockerHost, ipam: tuple[str, ...]) -> None:
    docker_host.create("lan", *ipam, *IPV4, ON_ETH1)
    box = docker_host.start("box", "--ip=192.168.77.90")
    mine = re.compile(f"192.168.77.90.*{box.mac()}.*{STRANGER}")
    for _ in range(3):
        docker_host.lan.send_frame("neighbour", arp_announcement(STRANGER, "192.168.77.90"))
    wait_until(lambda: bool(mine.search(docker_host.plugin.log())), 10, "a word of the second holder")
    docker_host.lan.send_frame("neighbour", arp_announcement(STRANGER, "192.168.77.90"))
    assert box.ping("192.168.77.1")
    docker_host.plugin.stop()
    assert len(mine.findall(docker_host.plugin.log())) == 1
    row = conflicts(docker_host)["192.168.77.90"]
    assert (row["mac"], row["endpoint_mac"]) == (STRANGER, box.mac())
    docker_host.plugin.start()
    box.remove()
    docker_host.plugin.stop()
    assert "192.168.77.90" not in conflicts(docker_host)
    docker_host.plugin.start()


@pytest.mark.one_engine
def test_held_address_is_defended(docker_host: DockerHost) -> None:
    docker_host.create("lan", OURS, *IPV4, *IPV6, ON_ETH1)
    docker_host.start("box")
    for address, frame in (
        ("192.168.77.65", arp_probe(STRANGER, "192.168.77.65")),
        ("fd77::7:1", solicitation(STRANGER, "fd77::7:1")),
    ):
        said = f"arp[6:2] = 2 and arp src host {address}" if "." in address else f"icmp6 and src {address}"
        with docker_host.lan.capture("neighbour", said) as capture:
            docker_host.lan.send_frame("neighbour", frame)
            assert len(capture.lines()) == 1, address
    assert docker_host.start("next").addresses() == {"192.168.77.65/24", "fd77::7:1/64"}


@pytest.mark.one_engine
@pytest.mark.parametrize("mode", ["private", "vepa", "passthru"])
def test_neighbours_address_is_refused_in_other_modes(docker_host: DockerHost, mode: str) -> None:
    on_eth2 = ("--opt=parent=eth2", "--ipam-opt=parent=eth2", f"--opt=mode={mode}")
    with neighbour_has(docker_host, "192.168.77.64") as mac:
        docker_host.create("lan", OURS, *IPV4, *on_eth2)
        error = docker_host.start_refusal("--ip=192.168.77.64")
        assert is_in_use(error, "192.168.77.64", mac, nic="eth2"), error
        box = docker_host.start("box")
        assert box.addresses() == {"192.168.77.65/24"}
        assert box.kind()["mode"] == mode
        if mode != "vepa":  # this needs a switch that sends back
            assert box.ping("192.168.77.64")


def take_down(host: DockerHost, broken: bool) -> None:
    """Let the second NIC be down, or up again."""
    host.lan.link("host", "down" if broken else "up", "eth2")


def pull_cable(host: DockerHost, broken: bool) -> None:
    """Let the second NIC have no carrier, or one again."""
    host.lan.cable("host", "out" if broken else "in", "eth2")


@pytest.mark.one_engine
@pytest.mark.parametrize("break_it", [take_down, pull_cable])
@pytest.mark.parametrize("ipam", [(), (OURS,)], ids=["engine", "ours"])
def test_unprovable_address_is_warned_of_or_refused_if_strict(
    docker_host: DockerHost, ipam: tuple[str, ...], break_it: Callable[[DockerHost, bool], None]
) -> None:
    break_it(docker_host, True)
    try:
        on_eth2 = ("--opt=parent=eth2", *(["--ipam-opt=parent=eth2"] if ipam else []))
        docker_host.create("lan", *ipam, *IPV4, *on_eth2)
        docker_host.engine.attempt_docker("run", "--detach", "--name=box", "--network=lan", "busybox", "true")
        output = "allocated without knowing whether it is in use on eth2 ("
        assert docker_host.plugin.log().count(output) == 1
        assert "; 1 such addresses since the plugin started)" in docker_host.plugin.log()
        docker_host.engine.docker("rm", "--force", "box")
        docker_host.engine.docker("network", "rm", "lan")

        strict = "--ipam-opt=conflict_detection=strict" if ipam else "--opt=conflict_detection=strict"
        docker_host.create("lan", *ipam, *IPV4, *on_eth2, strict)
        subject, flag = (
            (r"no address of pool .* can", "--ipam-opt")
            if ipam
            else (r"address 192\.168\.77\.\d+ cannot", "-o")
        )
        assert re.fullmatch(
            rf"{subject} be probed on eth2 \(.*\): bring the parent up, or create the network with {flag} conflict_detection=on "
            "instead of strict",
            plugin_error(docker_host.start_refusal()),
        )
    finally:
        break_it(docker_host, False)
    docker_host.start("box")
    assert docker_host.plugin.log().count(output) == 1


@pytest.mark.one_engine
def test_host_that_answers_for_everything_is_named(docker_host: DockerHost) -> None:
    """And when it falls silent, the next container has an address soon."""
    neighbour, mac = docker_host.lan.namespace("neighbour"), docker_host.lan.mac_of("neighbour")
    route = ("local", "10.9.0.0/16", "dev", "lo")
    docker_host.create("lan", OURS, "--subnet=10.9.0.0/16", "--gateway=10.9.0.1", ON_ETH1)
    docker_host.engine.docker("network", "rm", "lan")  # with what was prefetched
    run("ip", "-netns", neighbour, "route", "add", *route)
    try:
        docker_host.create("lan", OURS, "--subnet=10.9.0.0/16", "--gateway=10.9.0.1", ON_ETH1)
        for _ in range(3):
            assert re.fullmatch(
                rf"no free address found in pool .*: \d+ in a row are in use by others on eth1, the last one by MAC {mac}; "
                r"use another --ip-range, or disable proxy ARP on the router that answers for all of them, or create the network "
                "with --ipam-opt conflict_detection=off",
                plugin_error(docker_host.start_refusal()),
            )
    finally:
        run("ip", "-netns", neighbour, "route", "delete", *route)
    assert len(docker_host.start("box").addresses()) == 1
