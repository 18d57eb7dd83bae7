"""What the lab promises and other tests cannot notice: it cleans up after itself, and it finds what is left behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.containers import AT_ONCE, RANGE
from tests.lab.commands import CommandFailed, TookTooLong, run, wait_until
from tests.lab.daemons import Daemon
from tests.lab.docker_host import DockerHost
from tests.lab.engine import Engine
from tests.lab.lan import Lan
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
    with pytest.raises(TookTooLong, match=r"(?s)killed after \S+ seconds.*begun"):
        run("sh", "-c", "echo begun; sleep 60 & sleep 60", timeout=0.2)


def test_service_reaches_sandboxes_and_engine_api(docker_host: DockerHost) -> None:
    docker_host.create("lan", *RANGE)
    box = docker_host.start("box", AT_ONCE)
    inspect = "--format={{.NetworkSettings.SandboxKey}}"
    key = docker_host.engine.docker("inspect", inspect, "box").strip()
    assert key.startswith("/var/run/docker/netns/")
    seen_by_service = ("nsenter", f"--mount=/proc/{docker_host.plugin.service.pid}/ns/mnt", "--")
    output = json.loads(run(*seen_by_service, "nsenter", f"--net={key}", "--", "ip", "-json", "link"))
    assert box.mac() in [link["address"] for link in output]
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
        mvh = "mvh0 link eth1 address 02:00:00:00:00:01 type macvlan"
        lan.run_in("host", "ip", "link", "add", *mvh.split())
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
def test_next_lab_removes_what_a_killed_lab_left(usable_engine_version: str) -> None:
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
