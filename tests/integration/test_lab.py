"""The lab itself: it must hold before anything that is measured in it can be believed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from tests.integration.lives import AT_ONCE, RANGE, SUBNET
from tests.lab import frames
from tests.lab.commands import CommandFailed, TookTooLong, run, wait_until
from tests.lab.daemons import Daemon
from tests.lab.docker_host import DockerHost
from tests.lab.engine import Engine
from tests.lab.lan import Addresses, Lan
from tests.lab.plugin import CHECKOUT, Plugin
from tests.lab.unix_http import answers

MACVLAN = ("--driver=macvlan", "--opt=parent=eth1", "--subnet=192.168.77.0/24", "--gateway=192.168.77.1")
"""A network of the engine's own macvlan driver: our plugin has no part in these tests."""


def remains(name: str) -> list[str]:
    """List everything on the machine that carries the name of a LAN or of an engine's directory."""
    found = [f"namespace {line}" for line in run("ip", "netns", "list").splitlines() if name in line]
    found += [f"mount {line}" for line in Path("/proc/self/mounts").read_text().splitlines() if name in line]
    found += [str(path) for path in Path("/tmp").glob(f"*{name}*")]
    found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{name}*")]
    found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"{name}*")]
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = process.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if name in command:
            found.append(f"process {command}")
    return found


def test_stations_answer(lan: Lan) -> None:
    for address in ("192.168.77.1", "192.168.77.2", "fd77::1", "fd77::2"):
        assert lan.ping("host", address)
    assert lan.ping("gateway", "fd77::10")
    assert not lan.ping("host", "192.168.77.99", seconds=1)


def test_lan_has_the_requested_addresses_and_nics(lan: Lan) -> None:
    other = Addresses(gateway=("10.8.0.1/16",), neighbour=("10.8.3.2/16",), host=("10.8.0.10/16",))
    with Lan(other, nics=3) as second:
        assert second.ping("host", "10.8.3.2")
        assert set(second.host_links()) == {"lo", "eth1", "eth2", "eth3"}
        assert set(lan.host_links()) == {"lo", "eth1"}
        assert "default via 10.8.0.1" in second.run_in("host", "ip", "route")


def test_second_docker_host_is_on_the_same_lan(lan: Lan) -> None:
    with Lan(hosts=2, nics=2) as wide:
        for address in ("192.168.77.11", "fd77::11"):
            assert wide.ping("host", address)
            assert wide.ping("gateway", address)
        assert wide.ping("host2", "192.168.77.2")
        assert set(wide.host_links("host2")) == set(wide.host_links()) == {"lo", "eth1", "eth2"}
        assert wide.routes("host2", "default")[0]["gateway"] == "192.168.77.1"
    with pytest.raises(ValueError, match=r"there are switch, gateway, neighbour, host$"):
        lan.enter("host2")


@pytest.mark.parametrize(("own", "other"), [("192.168.77.99", "192.168.77.1"), ("fd77::99", "fd77::1")])
def test_address_can_be_added_and_removed(lan: Lan, own: str, other: str) -> None:
    prefix = "/24" if "." in own else "/64"
    lan.add_address("neighbour", own + prefix)
    assert lan.ping("gateway", own)
    assert lan.arp_entry("gateway", own) == lan.mac_of("neighbour")
    lan.remove_address("neighbour", own + prefix)
    lan.forget_neighbours("gateway")
    assert lan.arp_entry("gateway", own) is None
    assert not lan.ping("gateway", own, seconds=1)
    assert lan.ping("neighbour", other)


@pytest.mark.parametrize("state", ["reachable", "stale"])
@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_announcement_corrects_a_wrong_neighbour_entry(
    lan: Lan, family: str, state: Literal["reachable", "stale"]
) -> None:
    wrong, mac = "02:00:00:00:00:99", lan.mac_of("neighbour")
    if family == "IPv4":
        address, frame = "192.168.77.2", frames.arp_announcement(mac, "192.168.77.2")
    else:
        address, frame = "fd77::2", frames.advertisement(mac, "fd77::2")
    lan.set_neighbour("gateway", address, wrong, state=state)
    assert lan.arp_entry("gateway", address) == wrong
    assert not lan.ping("gateway", address, seconds=1)
    lan.send_frame("neighbour", frame)
    wait_until(lambda: lan.arp_entry("gateway", address) == mac, 5, "the announcement to be believed")
    assert lan.ping("gateway", address)


def test_permanent_neighbour_entry_withstands_an_announcement(lan: Lan) -> None:
    lan.set_neighbour("gateway", "192.168.77.2", "02:00:00:00:00:99", state="permanent")
    with lan.capture("gateway", "arp") as capture:
        lan.send_frame("neighbour", frames.arp_announcement(lan.mac_of("neighbour"), "192.168.77.2"))
        assert capture.lines() != []
    assert lan.arp_entry("gateway", "192.168.77.2") == "02:00:00:00:00:99"


def test_owner_answers_handmade_probes(lan: Lan) -> None:
    """The kernel of the neighbour, which knows the protocols, understands our frames."""
    asker, owner = "02:00:00:00:00:99", lan.mac_of("neighbour")
    with lan.capture("host", "arp[7] = 2 or icmp6[0] = 136", count=2) as capture:
        lan.send_frame("host", frames.arp_probe(asker, "192.168.77.2"), frames.solicitation(asker, "fd77::2"))
        told = "\n".join(capture.lines())
    assert f"192.168.77.2 is-at {owner}" in told
    assert "tgt is fd77::2" in told


def test_host_is_back_after_link_down_and_cable_out(lan: Lan) -> None:
    before = lan.routes("host")
    lan.link("host", "down")
    assert lan.routes("host", "default") == []
    lan.link("host", "up")
    for address in ("192.168.77.1", "fd77::1"):
        assert lan.ping("host", address)
    assert {route["dst"] for route in lan.routes("host")} == {route["dst"] for route in before}
    lan.cable("host", "out")
    wait_until(lambda: lan.host_links()["eth1"]["operstate"] != "UP", 5, "the loss of the carrier")
    assert not lan.ping("host", "192.168.77.1", seconds=1)
    lan.cable("host", "in")
    assert lan.ping("host", "192.168.77.1")


def test_capture_ends_by_count_or_time(lan: Lan) -> None:
    with lan.capture("neighbour", "icmp", count=2, seconds=10) as capture:
        lan.ping("host", "192.168.77.2")
        request, reply = capture.lines()
    assert "echo request" in request
    assert "echo reply" in reply
    with lan.capture("neighbour", "icmp", seconds=0.2) as capture:
        assert capture.lines() == []


@pytest.mark.usefixtures("lan")
def test_lan_is_gone_after_a_failed_block() -> None:
    lan = Lan()

    def fail_within() -> None:
        with lan:
            assert len(remains(lan.tag)) >= len(Lan.places)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_within()
    assert remains(lan.tag) == []


def test_failing_command_shows_its_output() -> None:
    with pytest.raises(CommandFailed, match=r"(?s)\$ sh -c .*exit status 3.*out.*err"):
        run("sh", "-c", "echo out; echo err >&2; exit 3")
    with pytest.raises(TookTooLong, match=r"(?s)killed after 0\.2 seconds.*begun"):
        run("sh", "-c", "echo begun; sleep 60 & sleep 60", timeout=0.2)


def test_container_reaches_gateway_and_neighbour(engine: Engine) -> None:
    assert engine.docker_json("version", "--format={{json .Server.Version}}").startswith(engine.version + ".")
    engine.docker("network", "create", *MACVLAN, "lan")
    engine.docker(
        "run", "--detach", "--name=box", "--network=lan", "--ip=192.168.77.50", "busybox", "sleep", "600"
    )
    for address in ("192.168.77.1", "192.168.77.2"):
        engine.docker("exec", "box", "ping", "-c", "1", "-w", "5", address)
    assert engine.lan.ping("neighbour", "192.168.77.50")


@pytest.mark.one_engine
def test_two_docker_hosts_share_a_lan(two_hosts: tuple[DockerHost, DockerHost]) -> None:
    ranges = ("--ip-range=192.168.77.64/27", "--ip-range=192.168.77.96/27")
    for host, own in zip(two_hosts, ranges, strict=True):
        host.create("lan", *SUBNET, own)
    boxes = [host.start("box", AT_ONCE) for host in two_hosts]
    for box, other in zip(boxes, reversed(boxes), strict=True):
        (address,) = other.addresses()
        assert box.ping(address.partition("/")[0])
        assert box.ping("192.168.77.1")
    first, second = two_hosts
    assert first.place != second.place
    first.engine.docker("rm", "--force", "box")
    assert boxes[1].ping("192.168.77.1")
    assert [len(host.engine.docker("ps", "--quiet").split()) for host in two_hosts] == [0, 1]


def test_service_reaches_sandboxes_and_engine_api(
    docker_host: DockerHost,
) -> None:
    docker_host.create("lan", *RANGE)
    box = docker_host.start("box", AT_ONCE)
    inspect = "--format={{.NetworkSettings.SandboxKey}}"
    key = docker_host.engine.docker("inspect", inspect, "box").strip()
    assert key.startswith("/var/run/docker/netns/")
    seen_by_service = ("nsenter", f"--mount=/proc/{docker_host.plugin.service.pid}/ns/mnt", "--")
    told = json.loads(run(*seen_by_service, "nsenter", f"--net={key}", "--", "ip", "-json", "link"))
    assert box.mac() in [link["address"] for link in told]
    assert Path(f"/proc/{docker_host.plugin.service.pid}/root{docker_host.plugin.state_dir}").is_dir()
    assert docker_host.engine.docker_host in docker_host.plugin.arguments
    assert answers(docker_host.engine.socket, "GET", "/_ping")


def test_remains_lists_what_is_left_on_a_host(lan: Lan) -> None:
    with Plugin(lan) as plugin:
        host = DockerHost(Engine(lan), plugin)  # the engine is never started
        plugin.stop()
        assert host.remains() == []
        for family, address in (("-4", "192.168.77.99"), ("-6", "fd77::99")):
            route = ("route", "add", address, "dev", "eth1", "proto", "99", "table", "77")
            lan.run_in("host", "ip", family, *route)
        lan.add_address("host", "192.168.77.98/32")
        lan.set_neighbour("host", "192.168.77.97", "02:00:00:00:00:97", state="permanent")
        words = (
            "ip",
            "link",
            "add",
            "mvh0",
            "link",
            "eth1",
            "address",
            "02:00:00:00:00:01",
            "type",
            "macvlan",
        )
        lan.run_in("host", *words)
        lan.run_in("host", "ip", "link", "set", "mvh0", "up")
        left = "\n".join(host.remains())
        for word in ("link mvh0", "192.168.77.99", "fd77::99", "address 192.168.77.98/32", "192.168.77.97"):
            assert word in left


@pytest.mark.parametrize("external_containerd", [False, True])
def test_containers_outlive_the_engine_and_not_the_lab(
    usable_engine_version: str, external_containerd: bool, lan: Lan
) -> None:
    with Engine(
        lan, usable_engine_version, live_restore=True, external_containerd=external_containerd
    ) as engine:
        engine.load_busybox()
        engine.docker("network", "create", *MACVLAN, "lan")
        address = "192.168.77.50"
        engine.docker("run", "--detach", "--network=lan", f"--ip={address}", "busybox", "sleep", "600")
        engine.kill()
        assert lan.ping("neighbour", address)
        engine.start()
        assert len(engine.docker("ps", "--quiet").split()) == 1
        engine.stop()
        assert lan.ping("neighbour", address)
        assert remains(engine.directory.name)
    assert remains(engine.directory.name) == []
    # The kernel takes down a network namespace some time after its last process has gone.
    wait_until(lambda: not lan.ping("neighbour", address, seconds=1), 20, f"silence at {address}")


KILLED_LAB = """
import sys, time
from tests.lab.engine import Engine
from tests.lab.lan import Lan
with Lan() as lan, Engine(lan, sys.argv[1]) as engine:
    engine.load_busybox()
    engine.docker("run", "--detach", "--network=none", "busybox", "sleep", "600")
    print(lan.tag, flush=True)
    time.sleep(600)
"""


@pytest.mark.usefixtures("lan")
def test_next_lab_removes_what_a_killed_lab_left(
    usable_engine_version: str,
) -> None:
    command = (sys.executable, "-c", KILLED_LAB, usable_engine_version)
    lab = Daemon("a lab", command, env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, stdout=subprocess.PIPE)
    try:
        lab.start()
        tag = lab.stdout.readline().decode().strip()
        assert tag, lab.log_tail()
    finally:
        lab.kill()
    wait_until(lambda: not any(line.startswith("process") for line in remains(tag)), 10, "the processes' end")
    assert remains(tag) != []
    with Lan():
        assert remains(tag) == []
