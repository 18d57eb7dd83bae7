"""What a service manager learns from the program, and what a real systemd does about a program that is stuck."""

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import need
from tests.integration.program import Program, activated, program
from tests.integration.test_least_privilege import ADDRESSED, host_of
from tests.lab.commands import wait_until
from tests.lab.engine import Engine
from tests.lab.lan import Lan
from tests.lab.systemd import OURS, Systemd, missing_for_systemd
from tests.lab.unix_http import answers

pytestmark = pytest.mark.one_engine

NIC = "--host-interface=eth1"
STALLING_TWISTD = """#!/opt/macvlan-twisted/bin/python3
import sys, time
from pathlib import Path
sys.path.insert(0, "/opt/macvlan-twisted/checkout")
from macvlan_twisted.failpoints import observe
from twisted.scripts.twistd import run

def stall(failpoint, is_done):
    if failpoint.name == "state.changes.commit" and not is_done and ORDER.exists():
        seconds = float(ORDER.read_text())
        ORDER.unlink()
        time.sleep(seconds)

ORDER = Path("/run/macvlan-twisted/stall")
observe(stall)
run()
"""
"""``twistd`` on a machine whose disk takes its time for one commit: as long as the file says."""


@pytest.fixture
def ours(lan: Lan) -> Iterator[Program]:
    """Give the program from the checkout, on a LAN."""
    with program(lan) as made:
        yield made


def test_service_manager_learns_of_start_life_and_end(ours: Program, tmp_path: Path) -> None:
    """Ready means that a call is answered; the socket is that of the unit's ``NOTIFY_SOCKET``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "900000"}
        words = ("-P", "-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile=", "macvlan")
        started = ours.prepare((*words, *ours.places, NIC), environment=environment)
        started.start()
        assert manager.recv(999).decode() == f"READY=1\nSTATUS=listening on {ours.socket}"
        assert activated(ours.socket)
        for _ in range(3):
            alive = f"WATCHDOG=1\nSTATUS=listening on {ours.socket}; 0 networks, 0 endpoints"
            assert manager.recv(999).decode() == alive
        started.send(signal.SIGTERM)
        while (last := manager.recv(999)).startswith(b"WATCHDOG"):
            pass
        assert last.decode() == "STOPPING=1\nSTATUS=stopping"
        assert started.wait(20) == 0, started.log()


def test_service_manager_learns_why_a_start_failed(ours: Program, tmp_path: Path) -> None:
    """``systemctl status`` shows it."""
    (tmp_path / "taken").touch()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        words = ("-P", "-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile=", "macvlan")
        places = (*ours.places, NIC, f"--state-dir={tmp_path}/taken/state")
        started = ours.prepare((*words, *places), environment={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        started.start()
        assert manager.recv(999).decode() == f"STATUS=cannot start: {tmp_path}/taken: File exists"
        assert started.wait(20) == 1, started.log()


def test_systemd_restarts_a_stuck_service_but_waits_for_a_slow_disk(engine: Engine) -> None:
    """With a twentieth of the unit's times: a disk that stalls for 3 of 6 s (60 of 120) only delays a start."""
    need(missing_for_systemd())
    with Systemd(engine, "MACVLAN_TWISTED_HOST_INTERFACE=eth1") as machine:
        machine.path("/opt/macvlan-twisted/bin/twistd").write_text(STALLING_TWISTD, encoding="utf-8")
        drop_in = machine.path(f"/etc/systemd/system/{OURS[0]}.d/watchdog.conf")
        drop_in.write_text("[Service]\nWatchdogSec=6\n", encoding="ascii")
        machine.run("systemctl", "daemon-reload")
        machine.start()
        # The command returns when systemd takes the service for ready.
        assert "listening on systemd:" in machine.log()
        assert answers(machine.path("/run/docker/plugins/macvlan-twisted.sock"), "POST", "/Plugin.Activate")
        host = host_of(machine)
        host.create("lan", *ADDRESSED)
        order = machine.path("/run/macvlan-twisted/stall")

        order.write_text("3", encoding="ascii")
        one = host.start("one")
        assert not order.exists()
        assert machine.shown("NRestarts") == "0"
        wait_until(lambda: "1 networks, 1 endpoints" in machine.shown("StatusText"), 20, "the status")

        order.write_text("3600", encoding="ascii")
        host.start_refusal()  # the engine gets no answer from a process that is killed
        machine.wait_until_listening(2)
        assert machine.shown("NRestarts") == "1"
        assert "watchdog: thread macvlan-twisted state has not answered for" in machine.log()
        assert "in stall" in machine.log(), "it does not show what was stuck"
        assert one.ping("192.168.77.1")

        machine.run("systemctl", "kill", "--signal=STOP", OURS[0])
        machine.wait_until_listening(3)
        host.start("two").remove()
        one.remove()
        engine.clear()
        machine.stop()
        assert host.remains() == [], machine.log()
