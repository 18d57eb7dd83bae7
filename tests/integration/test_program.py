"""The program as users and service managers meet it: started, refused, stopped, from checkout and wheel."""

import json
import os
import re
import select
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from macvlan_twisted import VERSION_TEXT
from tests.integration.program import (
    RUNNERS,
    TWIST,
    TWISTD,
    Program,
    activated,
    call,
    eventually_in,
    gone,
    installed_wheel,
    program,
)
from tests.lab.commands import Finished, run, wait_until
from tests.lab.daemons import Daemon
from tests.lab.lan import Lan
from tests.lab.plugin import CHECKOUT
from tests.lab.unix_http import UnixConnection

NIC = "--host-interface=eth1"
ANCESTORS_LINE = (
    "--gateway=192.168.1.1",
    "--macvlan-subnet=192.168.1.0/24",
    "-mode=bridge",
    "--host-interface=eth1",
)


@pytest.fixture
def ours(lan: Lan) -> Iterator[Program]:
    """Give the program from the checkout, on a LAN."""
    with program(lan) as made:
        yield made


@pytest.fixture(scope="session")
def wheel_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a Python in whose environment our wheel is installed, whatever ``pip install`` has left in the checkout."""
    left = tmp_path_factory.mktemp("checkout") / "macvlan_twisted.egg-info"
    left.mkdir()
    (left / "PKG-INFO").write_text(f"Metadata-Version: 2.1\nName: macvlan-twisted\nVersion: {VERSION_TEXT}\n")
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("PYTHONPATH", f"{left.parent}:{CHECKOUT}")
        return installed_wheel(tmp_path_factory.mktemp("wheel"))


def test_every_runner_starts_it_from_the_checkout(lan: Lan) -> None:
    for runner in RUNNERS:
        with program(lan) as ours:
            started = ours.start(NIC, runner=runner)
            assert b"NetworkDriver" in call(ours.socket, "Plugin.Activate"), runner
            assert started.terminate(20) == 0, started.log()
            assert not ours.socket.exists()


def test_every_runner_starts_it_from_an_installed_wheel(lan: Lan, wheel_python: Path) -> None:
    for runner in RUNNERS:
        with program(lan, wheel_python, None) as ours:
            started = ours.start(NIC, runner=runner)
            assert started.terminate(20) == 0, started.log()
            assert not ours.socket.exists()


def test_wheel_contains_the_product_only(wheel_python: Path) -> None:
    (packages,) = wheel_python.parent.parent.glob("lib/python*/site-packages")
    assert (packages / "macvlan_twisted" / "py.typed").exists()
    assert (packages / "twisted" / "plugins" / "macvlan_twisted_plugin.py").exists()
    assert not (packages / "twisted" / "__init__.py").exists()
    assert not (packages / "tests").exists()
    # -I, for the tests' own PYTHONPATH leads to the checkout
    where = run(str(wheel_python), "-I", "-c", "import macvlan_twisted; print(macvlan_twisted.__file__)")
    assert where.startswith(str(packages))


def test_help_and_version_are_shown(ours: Program) -> None:
    for runner in RUNNERS:
        shown = ours.attempt("--help", runner=runner, places=())
        assert shown.status == 0
        for option in ("--host-interface", "--macvlan-subnet", "--state-dir", "--log-format"):
            assert option in shown.stdout
        assert re.fullmatch(
            r"macvlan-twisted \d+\.\d+\S*\n", ours.attempt("--version", runner=runner, places=()).stdout
        )


def test_ancestors_command_line_works_unchanged(ours: Program) -> None:
    started = ours.start(*ANCESTORS_LINE)
    for chosen in ("host interface eth1", "subnet 192.168.1.0/24", "gateway 192.168.1.1"):
        assert f"{chosen}: as configured" in started.log()
    assert "driver initialised" in started.log()


def test_command_line_overrides_the_environment(ours: Program) -> None:
    other = ours.directory / "elsewhere"
    environment = {
        "MACVLAN_TWISTED_PLUGIN_DIR": str(other),
        "MACVLAN_TWISTED_STATE_DIR": str(ours.state_dir),
        "MACVLAN_TWISTED_RUNTIME_DIR": str(ours.directory / "run"),
        "MACVLAN_TWISTED_PLUGIN_NAME": "lanlord",
        "MACVLAN_TWISTED_GATEWAY": "192.168.77.1 fd77::1",
        "MACVLAN_TWISTED_MACVLAN_SUBNET": "192.168.77.0/24,fd77::/64",
        "MACVLAN_TWISTED_HOST_INTERFACE": "nothere0",
        "MACVLAN_TWISTED_DEBUG": "1",
    }
    started = ours.start(NIC, places=(), environment=environment, socket=other / "lanlord.sock")
    for chosen in ("host interface eth1", "gateway fd77::1", "subnet fd77::/64", "subnet 192.168.77.0/24"):
        assert f"{chosen}: as configured" in started.log()
    assert "Plugin.Activate" in started.log()
    assert ours.state_dir.is_dir()


def test_misspelt_variable_is_warned_of(ours: Program) -> None:
    log = ours.start(NIC, environment={"MACVLAN_TWISTED_STATEDIR": "/x"}).log()
    assert "#warn] environment variable MACVLAN_TWISTED_STATEDIR: does not match any option" in log
    assert "did you mean MACVLAN_TWISTED_STATE_DIR?" in log


def test_defaults_come_from_the_default_route(ours: Program) -> None:
    log = ours.start().log()
    assert re.search(r"host interface eth1: .*default route", log)
    for chosen in (
        "subnet 192.168.77.0/24: ",
        "gateway 192.168.77.1: ",
        "subnet fd77::/64: ",
        "gateway fd77::1: ",
    ):
        assert chosen in log


def test_without_a_default_route_it_starts_and_warns(ours: Program) -> None:
    for family in ("-4", "-6"):
        ours.lan.run_in("host", "ip", family, "route", "delete", "default")
    log = ours.start().log()
    assert "#warn] host interface: unknown" in log
    assert "networks without -o parent= will be internal" in log


@pytest.mark.parametrize("capability", ["net_admin", "net_raw"])
def test_missing_capability_is_refused_in_one_line(ours: Program, capability: str) -> None:
    few = ("setpriv", f"--bounding-set=-{capability}", f"--inh-caps=-{capability}")
    for runner in RUNNERS:
        refused = ours.attempt(NIC, runner=runner, wrapper=few)
        assert refused_for(refused, f"cannot start without CAP_{capability.upper()}: run as root")
    assert not ours.state_dir.exists()


def test_missing_directories_are_created_and_socket_is_private(ours: Program) -> None:
    assert not ours.plugins_dir.parent.exists()
    ours.start(NIC)
    assert ours.socket.stat().st_mode & 0o777 == 0o600
    assert ours.state_dir.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "words", [("--gateway=192.168.77",), ("--gateway=10.0.0.1", "--macvlan-subnet=10.1.0.0/24")]
)
def test_refused_command_line_leaves_nothing(ours: Program, words: tuple[str, ...]) -> None:
    refused = ours.attempt(*words)
    assert refused.status == 1, refused
    (message,) = (refused.stdout + refused.stderr).strip().splitlines()
    assert "--gateway" in message
    assert message.endswith("(see twistd macvlan --help)")
    assert not ours.state_dir.exists()
    assert not ours.plugins_dir.exists()
    assert not ours.lan.host_links().keys() - {"lo", "eth1"}


def refused_for(finished: Finished, reason: str) -> bool:
    """Whether a start was refused with status 1 and this reason, without a traceback."""
    output = finished.stdout + finished.stderr
    return finished.status == 1 and reason in output and "Traceback" not in output


def test_second_instance_is_refused(ours: Program, tmp_path: Path) -> None:
    ours.start(NIC)
    others = {
        "using state directory": ("--plugin-dir", str(tmp_path / "other")),
        "using socket": ("--state-dir", str(tmp_path / "other")),
    }
    for reason, words in others.items():
        for runner in RUNNERS:
            assert refused_for(ours.attempt(*words, runner=runner), reason), (reason, runner)
        daemon = ours.attempt_daemon(*words, pidfile=tmp_path / "pid", logfile=tmp_path / "log")
        assert daemon.status == 1
        (message,) = (daemon.stdout + daemon.stderr).splitlines()
        assert message.startswith("macvlan-twisted: another macvlan-twisted is")
        assert reason in message
        eventually_in(tmp_path / "log", reason)  # the child says it after its parent has gone
        assert not (tmp_path / "pid").exists()
    assert activated(ours.socket)


def test_socket_of_a_killed_instance_is_replaced(ours: Program) -> None:
    ours.start(NIC).kill()
    assert ours.socket.exists()
    assert ours.start(NIC).terminate(20) == 0
    assert not ours.socket.exists()


def test_foreign_socket_stays(ours: Program) -> None:
    ours.plugins_dir.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(str(ours.socket))
        foreign.listen()
        assert refused_for(ours.attempt(NIC), f"another program is listening on {ours.socket}")
        assert ours.socket.exists()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(ours.socket))


def test_stop_succeeds_when_the_socket_was_removed(ours: Program) -> None:
    started = ours.start(NIC)
    ours.socket.unlink()
    assert started.terminate(20) == 0
    assert "stopped" in started.log()
    assert "Traceback" not in started.log()
    assert list(ours.plugins_dir.iterdir()) == []


def test_file_in_the_sockets_place_stays(ours: Program) -> None:
    ours.plugins_dir.mkdir(parents=True)
    ours.socket.write_text("somebody's notes")
    assert refused_for(ours.attempt(NIC), f"{ours.socket} exists and is not a socket: remove it")
    assert ours.socket.read_text() == "somebody's notes"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("runner", RUNNERS)
def test_signal_ends_it_with_status_0(ours: Program, runner: str, number: signal.Signals) -> None:
    started = ours.start(NIC, runner=runner)
    idle = UnixConnection(ours.socket, 10)  # as the engine's: it keeps connections open
    idle.request("POST", "/Plugin.Activate")
    idle.getresponse().read()
    started.send(number)
    assert started.wait(20) == 0, started.log()
    assert not ours.socket.exists()
    idle.close()
    for word in ("Traceback", "Unhandled"):
        assert word not in started.log()


@pytest.mark.parametrize("runner", RUNNERS)
def test_sighup_and_sigusr1_do_not_end_it(ours: Program, runner: str) -> None:
    started = ours.start(NIC, runner=runner)
    for number in (signal.SIGHUP, signal.SIGUSR1):
        started.send(number)
        time.sleep(0.2)
        assert activated(ours.socket), number
    assert started.terminate(20) == 0, started.log()
    assert not ours.socket.exists()
    assert "stopped" in started.log()
    assert "Traceback" not in started.log()


def sleeps(pid: int) -> bool:
    """Say whether a process waits for something, by the third field of proc(5)'s ``stat``."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "S"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("runner", RUNNERS)
def test_signal_during_the_start_ends_it_with_status_0(
    ours: Program, tmp_path: Path, runner: str, number: signal.Signals
) -> None:
    """It waits for an engine that accepts and does not answer."""
    engine = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(engine))
        silent.listen()
        silent.settimeout(20)
        words = (
            *RUNNERS[runner],
            "macvlan",
            *ours.places,
            NIC,
            "--recover",
            f"--docker-host=unix://{engine}",
        )
        started = ours.prepare(words)
        started.start()
        asked, _ = silent.accept()
        asked.recv(1000)
        # Before it waits, http.client makes objects, and Python prints a traceback if a signal leaves one half made.
        wait_until(lambda: sleeps(started.pid), 20, "that it waits for the answer")
        started.send(number)
        assert started.wait(20) == 0, started.log()
        asked.close()
    assert "Traceback" not in started.log()
    assert list(ours.state_dir.iterdir()) == []
    assert list(ours.plugins_dir.iterdir()) == []


NETWORK = {
    "NetworkID": "n" * 64,
    "Options": {"com.docker.network.generic": {"parent": "eth1"}},
    "IPv4Data": [{"AddressSpace": "", "Pool": "10.7.0.0/16", "Gateway": "10.7.0.1/16"}],
    "IPv6Data": [],
}


def endpoint(number: int) -> dict[str, object]:
    """Describe an endpoint on that network, as an engine does."""
    interface = {"Address": f"10.7.1.{number}/16"}
    named = {"NetworkID": NETWORK["NetworkID"], "EndpointID": f"{number:064x}"}
    return {**named, "Interface": interface, "Options": {}}


@pytest.mark.parametrize("listen", ["", "unix:"])
def test_calls_under_way_are_answered_before_the_end(ours: Program, tmp_path: Path, listen: str) -> None:
    place = tmp_path / "plugin.sock" if listen else ours.socket
    words = (NIC, "--netlink-threads=1", *([f"--listen={listen}{place}"] if listen else []))
    started = ours.start(*words, socket=place)
    assert ask(UnixConnection(place, 30), "NetworkDriver.CreateNetwork", NETWORK) == {}
    connections = [UnixConnection(place, 30) for _ in range(200)]
    for connection in connections:
        ask(connection, "Plugin.Activate", {})
    for number, connection in enumerate(connections):
        connection.request("POST", "/NetworkDriver.CreateEndpoint", json.dumps(endpoint(number)))
    time.sleep(0.03)  # long enough for the last one to be read, by far not for all to be done
    done = len(select.select([each.sock for each in connections], [], [], 0)[0])
    started.send(signal.SIGTERM)
    assert done < len(connections), "nothing was under way"
    received = [json.loads(each.getresponse().read()) for each in connections]
    assert started.wait(30) == 0, started.log()
    assert all("MacAddress" in answer.get("Interface", {}) for answer in received), received
    # What was answered is kept, also for the next instance.
    assert list(tmp_path.iterdir()) == []
    assert "(networks: 1, endpoints: 200)" in ours.start(NIC).log()


def test_client_that_half_closes_gets_its_answer(ours: Program) -> None:
    ours.start(NIC)
    body = json.dumps(NETWORK)
    head = f"POST /NetworkDriver.CreateNetwork HTTP/1.1\r\nHost: \r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(ours.socket))
        client.sendall((head + body).encode())
        client.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: client.recv(65536), b""))  # to the end of the connection
    assert received.startswith(b"HTTP/1.1 200 ")
    assert json.loads(received.partition(b"\r\n\r\n")[2]) == {}


def ask(connection: UnixConnection, method: str, body: Mapping[str, object]) -> dict[str, object]:
    """Ask on a connection that stays open, and return the answer."""
    connection.request("POST", f"/{method}", json.dumps(body))
    answer = json.loads(connection.getresponse().read())
    assert isinstance(answer, dict)
    return answer


def test_daemon_writes_pidfile_and_logfile(ours: Program) -> None:
    parent = ours.attempt_daemon(NIC)
    assert parent.status == 0, parent
    assert activated(ours.socket)
    assert "driver initialised" in ours.logfile.read_text()
    end_daemon(ours)
    assert not ours.pidfile.exists()
    assert not ours.socket.exists()
    log = ours.logfile.read_text()
    assert "stopped" in log
    assert "Traceback" not in log


def test_new_logfile_is_private_and_an_existing_one_keeps_its_mode(ours: Program) -> None:
    kept = ours.directory / "kept.log"
    kept.touch()
    kept.chmod(0o640)
    for logfile, mode in ((ours.logfile, 0o600), (kept, 0o640)):
        assert ours.attempt_daemon(NIC, logfile=logfile).status == 0
        eventually_in(logfile, "driver initialised")
        assert logfile.stat().st_mode & 0o777 == mode
        end_daemon(ours)


def test_sigusr1_rotates_the_logfile(ours: Program) -> None:
    assert ours.attempt_daemon(NIC).status == 0
    eventually_in(ours.logfile, "driver initialised")
    os.kill(int(ours.pidfile.read_text()), signal.SIGUSR1)
    rotated = ours.logfile.with_name(f"{ours.logfile.name}.1")
    wait_until(rotated.exists, 10, "a rotated log file")
    end_daemon(ours)
    assert "driver initialised" in rotated.read_text()
    assert "stopped" in ours.logfile.read_text()
    assert ours.logfile.stat().st_mode & 0o777 == 0o600


def test_sighup_reopens_a_log_file_that_was_moved(ours: Program) -> None:
    assert ours.attempt_daemon(NIC).status == 0
    eventually_in(ours.logfile, "driver initialised")
    moved = ours.logfile.rename(ours.logfile.with_name("moved.log"))
    os.kill(int(ours.pidfile.read_text()), signal.SIGHUP)
    wait_until(ours.logfile.exists, 10, "a new log file")
    assert ours.logfile.stat().st_mode & 0o777 == 0o600
    end_daemon(ours)
    assert "stopped" in ours.logfile.read_text()
    assert "stopped" not in moved.read_text()


def test_sighup_reopens_the_log_file_of_twist(ours: Program) -> None:
    log = ours.directory / "twist.log"
    started = ours.prepare((*TWIST, f"--log-file={log}", "macvlan", *ours.places, NIC))
    started.start()
    eventually_in(log, "driver initialised")
    moved = log.rename(log.with_name("moved.log"))
    started.send(signal.SIGHUP)
    wait_until(log.exists, 10, "a new log file")
    assert started.terminate(20) == 0
    assert "stopped" in log.read_text()
    assert "stopped" not in moved.read_text()


def test_log_goes_on_where_the_file_cannot_be_reopened(ours: Program) -> None:
    place = ours.directory / "logs"
    place.mkdir()
    assert ours.attempt_daemon(NIC, logfile=place / "twistd.log").status == 0
    eventually_in(place / "twistd.log", "driver initialised")
    moved = place.rename(ours.directory / "moved")
    os.kill(int(ours.pidfile.read_text()), signal.SIGHUP)
    eventually_in(moved / "twistd.log", "cannot be reopened (No such file or directory)")
    end_daemon(ours)
    assert "stopped" in (moved / "twistd.log").read_text()


def end_daemon(ours: Program) -> None:
    """Terminate the daemon and wait for its end."""
    pid = int(ours.pidfile.read_text())
    os.kill(pid, signal.SIGTERM)
    gone(pid)


def events_in(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.split("\n") if line]


def test_json_log_has_one_object_per_line(ours: Program) -> None:
    started = ours.start(NIC, "--log-format=json", "-d")
    call(ours.socket, "NetworkDriver.GetCapabilities")
    assert started.terminate(20) == 0
    events = events_in(started.log())
    assert any("driver initialised" in event["message"] for event in events)
    assert any("NetworkDriver.GetCapabilities" in event.values() for event in events)


def test_daemon_and_twist_write_json_logs(ours: Program) -> None:
    assert ours.attempt_daemon(NIC, "--log-format=json").status == 0
    assert events_in(eventually_in(ours.logfile, "driver initialised"))
    end_daemon(ours)
    started = ours.start(NIC, "--log-format=json", runner="twist")
    assert started.terminate(20) == 0
    assert events_in(started.log())


# twist writes JSON by itself when it does not write to a terminal
CALL_WITH_DURATION = (
    r"""NetworkDriver\.GetCapabilities(: answered in \d+\.\d+ ms|.*"milliseconds": \d+\.\d+)"""
)


@pytest.mark.parametrize("runner", RUNNERS)
def test_debug_logs_each_call_with_its_duration(ours: Program, runner: str) -> None:
    started = ours.start(NIC, "-d", runner=runner)
    call(ours.socket, "NetworkDriver.GetCapabilities")
    started.wait_until(
        lambda: re.search(CALL_WITH_DURATION, started.log()) is not None, 10, "a line for the call"
    )


@pytest.mark.parametrize("runner", RUNNERS)
def test_without_debug_there_are_no_debug_lines(ours: Program, runner: str) -> None:
    started = ours.start(NIC, runner=runner)
    call(ours.socket, "NetworkDriver.GetCapabilities")
    assert started.terminate(20) == 0
    assert "NetworkDriver.GetCapabilities" not in started.log()
    assert "#debug]" not in started.log()


def test_shadowed_plugin_name_is_warned_of(ours: Program) -> None:
    started = ours.start("--plugin-name=macvlan", NIC, socket=ours.plugins_dir / "macvlan.sock")
    assert re.search(r"#warn\] .*built-in driver.*--plugin-name", started.log())


def test_it_listens_on_the_named_endpoint(ours: Program, tmp_path: Path) -> None:
    place = tmp_path / "plugin.sock"
    started = ours.start(NIC, f"--listen=unix:{place}", socket=place)
    assert not ours.plugins_dir.exists()
    assert started.terminate(20) == 0
    refused = ours.attempt(NIC, f"--listen=unix:{tmp_path}/no/such/place")
    assert refused_for(refused, f"cannot listen on unix:{tmp_path}/no/such/place")


def test_unix_endpoint_is_locked_and_private_like_the_default(ours: Program, tmp_path: Path) -> None:
    place = tmp_path / "plugin.sock"
    here = f"--listen=unix:{place}"
    first = ours.start(NIC, here, socket=place)
    assert place.stat().st_mode & 0o777 == 0o600
    other = (NIC, here, "--state-dir", str(tmp_path / "other"))
    assert refused_for(ours.attempt(*other), f"another macvlan-twisted is using socket {place}")
    assert activated(place)
    first.kill()
    # Twisted's own lock file is a link to a pid, and would block here, where another process has got that pid.
    assert not place.with_name(f"{place.name}.lock").is_symlink()
    assert place.exists()
    second = ours.start(NIC, f"{here}:mode=660", socket=place)
    assert place.stat().st_mode & 0o777 == 0o660
    assert second.terminate(20) == 0, second.log()
    assert list(tmp_path.iterdir()) == [tmp_path / "other"]
    assert "Traceback" not in second.log()


def hand_over(ours: Program, place: Path) -> Daemon:
    """Start the program as a socket unit does, with a listening socket as file descriptor 3, by hand."""
    words = (*TWISTD, "--nodaemon", "--pidfile=", "macvlan", *ours.places, NIC)
    script = """
import os, socket, sys
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[1])
listening.listen()
os.dup2(os.dup(listening.fileno()), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_FDNAMES="macvlan-twisted.socket", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""
    wrapper = (sys.executable, "-c", script, str(place))
    return ours.prepare((*words, "--listen=systemd:domain=UNIX:index=0"), wrapper=wrapper)


def activate(ours: Program, place: Path) -> Daemon:
    """Do the same with systemd's own program for that."""
    words = (*TWISTD, "--nodaemon", "--pidfile=", "macvlan", *ours.places, NIC)
    variables = ("--setenv=PYTHONPATH", "--setenv=PATH")  # it hands on few by itself
    wrapper = ("systemd-socket-activate", f"--listen={place}", "--fdname=plugin", *variables)
    return ours.prepare((*words, "--listen=systemd:domain=UNIX:index=0"), wrapper=wrapper)


STARTERS = [hand_over, *([activate] if shutil.which("systemd-socket-activate") else [])]


@pytest.mark.parametrize("starter", STARTERS)
def test_socket_from_systemd_is_used_and_stays(ours: Program, tmp_path: Path, starter: object) -> None:
    assert callable(starter)
    place = tmp_path / "plugin.sock"
    started = starter(ours, place)
    started.start()
    started.wait_until(lambda: activated(place), 20, f"an answer on {place}")
    assert not ours.plugins_dir.exists()
    assert place.stat().st_mode & 0o022 == 0, "it was opened to others"
    assert started.terminate(20) == 0, started.log()
    # The socket is systemd's, which goes on to listen there, so that no call of the engine is lost.
    assert sorted(tmp_path.iterdir()) == [place]


def test_systemd_endpoint_without_systemd_is_refused(ours: Program) -> None:
    endpoint = "systemd:domain=UNIX:index=0"
    assert refused_for(ours.attempt(NIC, f"--listen={endpoint}"), f"--listen {endpoint} is not an endpoint")
    assert refused_for(ours.attempt(NIC, "--listen=pigeon:coop"), "--listen pigeon:coop is not an endpoint")
