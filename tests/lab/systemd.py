"""A real systemd in namespaces of its own, beside an engine, which runs our own units as they are."""

import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab import cgroups
from tests.lab.commands import Finished, attempt, run, wait_until
from tests.lab.daemons import Daemon
from tests.lab.engine import Engine
from tests.lab.plugin import CHECKOUT

BOOT = Path(__file__).with_name("systemd_boot.sh")
SYSTEMD = Path("/lib/systemd/systemd")
OURS = ("macvlan-twisted.service", "macvlan-twisted.socket")
TARGETS = ("sysinit", "basic", "sockets", "multi-user", "network-online", "shutdown")
"""Of these units there is a name and no more: what they stand for is there already."""


def missing_for_systemd() -> str:
    """Say what keeps a systemd of our own from running here, with the remedy, or nothing."""
    if not SYSTEMD.exists():
        return "no systemd here: apt-get install systemd"
    if not (cgroups.MOUNT / "cgroup.procs").exists() and not (cgroups.MOUNT / "unified").is_dir():
        return f"no control groups of version 2 below {cgroups.MOUNT}"
    if "overlay" not in Path("/proc/filesystems").read_text(encoding="ascii"):
        return "this kernel has no overlay file system: modprobe overlay"
    return ""


class Systemd:
    """A small machine whose first process is systemd, from the start of ``with`` to the end of that block.

    It has the docker host's network and the engine's ``/run/docker``. The units are those of ``systemd/``, the
    program is the checkout's with the packages of the environment that runs the tests. `settings` are the
    lines of ``/etc/default/macvlan-twisted``, `drop_ins` names of files of ``systemd/``.
    """

    name = "macvlan-twisted"

    def __init__(self, engine: Engine, *config: str, drop_ins: tuple[str, ...] = ()) -> None:
        """Prepare a machine; nothing exists before the `with` block."""
        self.engine = engine
        self._settings = config
        self._drop_ins = drop_ins
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        """Boot, and start the socket unit; if that fails, all is removed again."""
        with ExitStack() as undo:
            self.directory = Path(tempfile.mkdtemp(prefix=f"{self.engine.lan.tag}-systemd-"))
            self.directory.chmod(0o755)
            undo.callback(shutil.rmtree, self.directory)
            self._furnish()
            group = cgroups.MOUNT / "unified"
            group = (group if group.is_dir() else cgroups.MOUNT) / self.directory.name
            group.mkdir()
            undo.callback(cgroups.remove, self.directory.name)
            base = sys.base_prefix
            words = (str(BOOT), str(self.directory), base, sys.prefix, str(CHECKOUT))
            own = (
                "unshare",
                "--mount",
                "--propagation",
                "slave",
                "--pid",
                "--cgroup",
                "--ipc",
                "--uts",
                "--fork",
            )
            enter = ("sh", "-c", f'echo $$ >{group}/cgroup.procs; exec "$@"', "sh")
            command = (*self.engine.beside(), *enter, *own, "--kill-child", "--", "sh", *words)
            self.init = Daemon("systemd", command, log=self.directory / "systemd.log", forks=True)
            undo.callback(self.init.kill)
            self.init.start()
            self.init.wait_until(self._booted, 30, "the end of systemd's boot")
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it with all that runs in it."""
        self._undo.close()

    def run(self, *command: str, timeout: float = 60) -> str:
        """Run a command there as root; it must succeed."""
        return run(*self._enter(), *command, timeout=timeout)

    def attempt(self, *command: str, timeout: float = 60) -> Finished:
        """Run a command there as root, and answer how it ended."""
        return attempt(*self._enter(), *command, timeout=timeout)

    def shown(self, name: str, unit: str = OURS[0]) -> str:
        """Return what systemd says of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def log(self) -> str:
        """Return what the service has said, over all its starts, and then systemd itself."""
        said = self.directory / "service.log"
        return (said.read_text(encoding="utf-8") if said.exists() else "") + self.init.log()

    def start(self) -> None:
        """Start the service and its socket."""
        self.run("systemctl", "start", *OURS)

    def stop(self) -> None:
        """Stop the service. The socket stays, and the next call starts it again."""
        self.run("systemctl", "stop", OURS[0])

    def wait_until_listening(self, starts: int = 1) -> None:
        """Wait until the service has begun to listen, for the so many-th time."""
        wait_until(
            lambda: self.log().count("listening on systemd:") >= starts, 40, f"that it listens\n{self.log()}"
        )

    def status_of_process(self) -> dict[str, str]:
        """Return what the kernel says of the service's process: ids, capabilities, seccomp."""
        told = self.run("cat", f"/proc/{self.shown('MainPID')}/status")
        return {name: value.strip() for name, _, value in (line.partition(":") for line in told.splitlines())}

    def confined(self, script: str) -> str:
        """Run a Python script under all that the service's unit says, and return what it has printed."""
        unit = "confined.service"
        said = self.directory / "confined.log"
        said.unlink(missing_ok=True)
        cat = self.run("systemctl", "cat", OURS[0])
        kept = [
            line for line in cat.splitlines() if "=" in line and line.partition("=")[0] not in NOT_CONFINING
        ]
        (self.directory / "confined.py").write_text(script, encoding="utf-8")
        lines = [
            *(
                "[Service]",
                *kept,
                "Type=oneshot",
                f"StandardOutput=append:{said}",
                f"StandardError=append:{said}",
            ),
            "ExecStart=/opt/macvlan-twisted/bin/python3 -",
            f"StandardInput=file:{self.directory}/confined.py",
        ]
        self.path(f"/etc/systemd/system/{unit}").write_text("\n".join([*lines, ""]), encoding="utf-8")
        self.run("systemctl", "daemon-reload")
        started = self.attempt("systemctl", "start", unit)
        told = said.read_text(encoding="utf-8") if said.exists() else ""
        assert started.status == 0, f"{started}\n{told}\n{self.init.log()}"
        return told

    def path(self, inside: str) -> Path:
        """Say where a file of that machine is found from outside."""
        return Path(f"/proc/{self.init.pid}/root{inside}")

    @property
    def state_dir(self) -> Path:
        """A copy of the state directory, as SQLite would lose its way to it: the service must be stopped."""
        copy = self.directory / "state"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.path("/var/lib/macvlan-twisted"), copy)
        return copy

    def _booted(self) -> bool:
        try:
            told = self.attempt("systemctl", "is-system-running").stdout.strip()
        except (ProcessLookupError, FileNotFoundError):  # the namespaces are not made yet
            return False
        return told in ("running", "degraded")

    def _enter(self) -> tuple[str, ...]:
        proc = f"/proc/{self.init.pid}/ns"
        return ("nsenter", *(f"--{each}={proc}/{file}" for each, file in SPACES.items()), "--")

    def _furnish(self) -> None:
        (self.directory / "layer").mkdir()
        units = self.directory / "units"
        units.mkdir()
        for name in TARGETS:
            (units / f"{name}.target").write_text("[Unit]\nDefaultDependencies=no\n", encoding="ascii")
        for name in OURS:
            shutil.copy(CHECKOUT / "systemd" / name, units)
        dropped = units / f"{OURS[0]}.d"
        dropped.mkdir()
        for name in self._drop_ins:
            shutil.copy(CHECKOUT / "systemd" / name, dropped)
        said = self.directory / "service.log"
        lines = [f"StandardOutput=append:{said}", f"StandardError=append:{said}"]
        # A Python that was moved to where the service may read it finds its own library no more by itself.
        config = ("LD_LIBRARY_PATH=/opt/macvlan-twisted/base/lib", *self._settings)
        lines += [f'Environment="{each}"' for each in config]
        (dropped / "of-the-test.conf").write_text("\n".join(["[Service]", *lines, ""]), encoding="utf-8")


NOT_CONFINING = (
    *("Description", "Documentation", "Requires", "After", "Wants", "Before", "WantedBy", "Also", "Type"),
    *("ExecStart", "Restart", "RestartSec", "StandardOutput", "StandardError"),
    *("NotifyAccess", "TimeoutStartSec", "WatchdogSec"),
)
"""What a unit says that has nothing to do with what its program may do."""
SPACES = {"mount": "mnt", "pid": "pid", "ipc": "ipc", "uts": "uts", "net": "net", "cgroup": "cgroup"}
