"""Our program from outside: the ways to run it, as users and service managers do."""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.lab.commands import Finished, attempt, run, wait_until
from tests.lab.daemons import Daemon
from tests.lab.lan import Lan
from tests.lab.plugin import CHECKOUT
from tests.lab.unix_http import answers, request

TWISTD = ("-P", "-c", "from twisted.scripts.twistd import run; run()")
TWIST = ("-P", "-c", "from twisted.application.twist._twist import Twist; Twist.main()")
RUNNERS: Mapping[str, tuple[str, ...]] = {
    "twistd": (*TWISTD, "--nodaemon", "--pidfile="),
    "twist": TWIST,
    "python -m twisted": ("-P", "-m", "twisted"),
}
"""What follows the interpreter's name; each of them runs in the foreground."""


class Program:
    """The program on the docker host of a LAN, with a directory of its own for all that it makes."""

    def __init__(self, lan: Lan, directory: Path, python: Path, pythonpath: Path | None = CHECKOUT) -> None:
        """Remember where to run it, and from where its code comes: `pythonpath`, or what is installed."""
        self.lan = lan
        self.directory = directory
        self.plugins_dir = directory / "run" / "plugins"
        self.state_dir = directory / "lib" / "state"
        self.pidfile = directory / "twistd.pid"
        self.logfile = directory / "twistd.log"
        self._python = python
        self._pythonpath = pythonpath
        self._daemons: list[Daemon] = []

    @property
    def socket(self) -> Path:
        """The socket that it makes by default."""
        return self.plugins_dir / "macvlan-twisted.sock"

    @property
    def places(self) -> tuple[str, ...]:
        """The options that keep it to its directory."""
        return (
            *("--plugin-dir", str(self.plugins_dir)),
            *("--state-dir", str(self.state_dir)),
            *("--runtime-dir", str(self.directory / "run")),
        )

    def start(
        self,
        *arguments: str,
        runner: str = "twistd",
        socket: Path | None = None,
        environment: Mapping[str, str] | None = None,
        places: tuple[str, ...] | None = None,
        wrapper: tuple[str, ...] = (),
    ) -> Daemon:
        """Start it in the foreground, behind the words of a wrapper, and wait until it answers."""
        places = self.places if places is None else places
        words = (*RUNNERS[runner], "macvlan", *places, *arguments)
        started = self.prepare(words, environment=environment, wrapper=wrapper)
        started.start()
        awaited = socket or self.socket
        started.wait_until(lambda: activated(awaited), 20, f"an answer on {awaited}")
        return started

    def prepare(
        self,
        words: tuple[str, ...],
        *,
        environment: Mapping[str, str] | None = None,
        wrapper: tuple[str, ...] = (),
    ) -> Daemon:
        """Prepare the interpreter with these arguments; the test starts it, and its end kills it."""
        command = (*self.lan.enter("host"), *wrapper, str(self._python), *words)
        daemon = Daemon("the program", command, env=self._environment(environment))
        self._daemons.append(daemon)
        return daemon

    def attempt(
        self,
        *arguments: str,
        runner: str = "twistd",
        places: tuple[str, ...] | None = None,
        wrapper: tuple[str, ...] = (),
    ) -> Finished:
        """Run it in the foreground to its end, behind the words of a wrapper."""
        places = self.places if places is None else places
        words = (*wrapper, str(self._python), *RUNNERS[runner], "macvlan", *places, *arguments)
        return attempt(*self.lan.enter("host"), *words, env=self._environment(None))

    def attempt_daemon(
        self, *arguments: str, pidfile: Path | None = None, logfile: Path | None = None
    ) -> Finished:
        """Let it become a daemon; the end is that of the parent."""
        own = (f"--pidfile={pidfile or self.pidfile}", f"--logfile={logfile or self.logfile}")
        words = (str(self._python), *TWISTD, *own, "macvlan", *self.places, *arguments)
        return attempt(*self.lan.enter("host"), *words, env=self._environment(None))

    def kill(self) -> None:
        """End whatever still runs of it."""
        for daemon in self._daemons:
            daemon.kill()
        if self.pidfile.exists():
            attempt("kill", "-KILL", self.pidfile.read_text(encoding="ascii").strip())

    def _environment(self, more: Mapping[str, str] | None) -> dict[str, str]:
        paths = {} if self._pythonpath is None else {"PYTHONPATH": str(self._pythonpath)}
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", **paths, **(more or {})}


@contextmanager
def program(
    lan: Lan, python: Path = Path(sys.executable), pythonpath: Path | None = CHECKOUT
) -> Iterator[Program]:
    """Give a program whose directory, and whatever of it still runs, goes at the end of the block."""
    directory = Path(tempfile.mkdtemp(prefix=f"{lan.tag}-program-"))
    made = Program(lan, directory, python, pythonpath)
    try:
        yield made
    finally:
        made.kill()
        shutil.rmtree(directory)


def activated(socket: Path) -> bool:
    """Whether a plugin answers on the socket."""
    return answers(socket, "POST", "/Plugin.Activate")


def call(socket: Path, method: str) -> bytes:
    """Ask something that needs no body, and return the answer."""
    return request(socket, "POST", f"/{method}")[1]


def gone(pid: int, seconds: float = 20) -> None:
    """Wait until a daemon has ended that is not our child."""
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), seconds, f"the end of process {pid}")


def installed_wheel(directory: Path) -> Path:
    """Build the wheel and install it into a fresh virtual environment; return its Python.

    What the wheel requires is taken from the environment that runs the tests: installing that too, from a
    package index, is done by ``.ci/run``.
    """
    source = directory / "source"
    source.mkdir()
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.rst", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    for name in ("macvlan_twisted", "twisted", "systemd", "network-managers"):
        shutil.copytree(CHECKOUT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    # An egg-info in the checkout, which PYTHONPATH leads to, would pass for the installed product.
    pip = ("env", "--unset=PYTHONPATH", sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--wheel-dir", str(directory), str(source), timeout=180)
    (wheel,) = directory.glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", str(directory / "venv"))
    python = directory / "venv" / "bin" / "python"
    run(*pip, f"--python={python}", "install", "--no-deps", str(wheel), timeout=60)
    (packages,) = (directory / "venv").glob("lib/python*/site-packages")
    ours = subprocess.run(
        (sys.executable, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"),
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    (packages / "what_the_tests_have.pth").write_text(ours + "\n", encoding="utf-8")
    return python


def eventually_in(path: Path, text: str, seconds: float = 10) -> str:
    """Wait until a file holds a text, and return all of it."""
    deadline = time.monotonic() + seconds
    while True:
        content = path.read_text(encoding="utf-8") if path.exists() else ""
        if text in content or time.monotonic() > deadline:
            assert text in content
            return content
        time.sleep(0.02)
