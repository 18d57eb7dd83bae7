"""Files and log of the program are private."""

import grp
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.program import Program, activated, program
from tests.lab.commands import attempt, run
from tests.lab.lan import Lan

NIC = "--host-interface=eth1"
SECRET = "correct-horse-battery-staple"


@pytest.fixture
def ours(lan: Lan) -> Iterator[Program]:
    """Give the program on a docker host."""
    with program(lan) as made:
        yield made


def modes(top: Path) -> dict[str, str]:
    """Return the modes of all below a directory, by their paths."""
    return {
        str(path.relative_to(top)): f"{stat.S_IMODE(path.lstat().st_mode):o}"
        for path in sorted(top.rglob("*"))
    }


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_files_it_creates_are_private(ours: Program, umask: int) -> None:
    """As a daemon, with all the files that one has, under the loosest umask and the tightest."""
    before = os.umask(umask)
    try:
        assert ours.attempt_daemon(NIC).status == 0
    finally:
        os.umask(before)
    assert activated(ours.socket)
    found = modes(ours.directory)
    pairs = {
        "lib/state": "700",
        "lib/state/state.sqlite": "600",
        "lib/state/state.sqlite-wal": "600",
        "lib/state/generation": "600",
        "lib/state/lock": "600",
        "run/plugins/macvlan-twisted.sock": "600",
        "run/plugins/macvlan-twisted.sock.lock": "600",
        "twistd.log": "600",
        "twistd.pid": "600",
    }
    assert {path: mode for path, mode in found.items() if path in pairs} == pairs
    assert [path for path, mode in found.items() if int(mode, 8) & 0o022] == []
    (witness,) = set(found) - set(pairs) - {"lib", "run", "run/plugins"}
    assert (str(Path(witness).parent), found[witness]) == ("run", "600")


def test_log_contains_no_secret_of_the_environment(ours: Program) -> None:
    started = ours.start(
        NIC, "--debug", environment={"PASSWORD": SECRET, "HTTP_PROXY": f"http://x:{SECRET}@y/"}
    )
    assert started.terminate(20) == 0
    assert "Plugin.Activate" in started.log()
    assert SECRET not in started.log()


def test_socket_group_may_use_the_socket_and_others_not(ours: Program, lan: Lan) -> None:
    group = next(each for each in grp.getgrall() if each.gr_gid not in (0, os.getegid()))
    ours.start(NIC, f"--socket-group={group.gr_name}")
    it = ours.socket.stat()
    assert (it.st_gid, stat.S_IMODE(it.st_mode)) == (group.gr_gid, 0o660)
    ours.directory.chmod(0o755)
    dial = f"import socket; socket.socket(socket.AF_UNIX).connect({str(ours.socket)!r})"
    python = ("/usr/bin/env", "-i", "/usr/bin/python3", "-c", dial)

    def dials(*words: str) -> bool:
        return attempt("setpriv", "--reuid=4711", *words, "--inh-caps=-all", "--", *python).status == 0

    assert dials(f"--regid={group.gr_gid}", "--clear-groups")
    assert not dials("--regid=4711", "--clear-groups")


def test_state_of_another_user_is_refused(ours: Program) -> None:
    """Who starts by hand, as root, what the unit runs as a user of its own would leave files that are root's."""
    ours.state_dir.mkdir(parents=True)
    os.chown(ours.state_dir, 4711, -1)
    refused = ours.attempt(NIC)
    assert refused.status == 1
    assert (
        f"state directory {ours.state_dir} belongs to user 4711, but the plugin runs as root"
        in refused.stdout
    )
    assert list(ours.state_dir.iterdir()) == []
    assert not ours.socket.exists()


@pytest.mark.parametrize("mode", [0o1777, 0o755])
def test_shared_state_directory_is_refused_and_unchanged(ours: Program, mode: int) -> None:
    ours.state_dir.mkdir(parents=True)
    foreign = ours.state_dir / "somebodys.sock"
    foreign.touch()
    if mode & stat.S_ISVTX:
        os.chown(foreign, 4711, -1)
    ours.state_dir.chmod(mode)
    refused = ours.attempt(NIC)
    assert refused.status == 1
    assert "choose another --state-dir" in refused.stdout
    assert stat.S_IMODE(ours.state_dir.stat().st_mode) == mode
    assert list(ours.state_dir.iterdir()) == [foreign]


def test_system_python_is_available() -> None:
    run("/usr/bin/python3", "-c", "import socket", timeout=10)
    assert sys.version_info >= (3, 11)
