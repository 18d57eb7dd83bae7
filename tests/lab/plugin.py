"""Our service, run as its users run it, in a docker host of a throw-away LAN."""

import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.lab.commands import Narrate
from tests.lab.daemons import Daemon
from tests.lab.engine import Engine
from tests.lab.fork_server import ForkedDaemon
from tests.lab.lan import Lan
from tests.lab.socket_unit import ENDPOINT, SocketUnit
from tests.lab.unix_http import answers, request

CHECKOUT = Path(__file__).resolve().parents[2]
DEFAULTS = ("--host-interface", "eth1", "--gateway", "192.168.77.1", "--macvlan-subnet", "192.168.77.0/24")
TWISTD = ("-P", "-c", "from twisted.scripts.twistd import run; run()")


@dataclass(frozen=True)
class ShortGracePeriods:
    """How soon the service removes what nobody has, in seconds; users have no say in it."""

    idle: float = 6.0
    between_checks: float = 1.0
    first: float = 1.0
    unlisted: float = 6.0


class Plugin:
    """Our service, from the start of ``with Plugin(lan, engine.plugins_dir)`` to the end of that block.

    `arguments` follow ``--plugin-dir`` and ``--state-dir`` on the command line, and `environment` holds all
    of the ``MACVLAN_TWISTED_...`` variables that it gets: the tests' own do not reach it. Without
    `plugins_dir` the socket is in a directory that no engine looks into. `pythonpath` is where the code comes
    from, the checkout by default; None takes what is installed. `inside` an engine's surroundings it sees the sandboxes
    in ``/var/run/docker/netns``, as on a real host. With a `socket_unit` the socket is handed over, and
    is there before :meth:`start` and after :meth:`stop`. With `short_grace_periods` it removes sooner what nobody has.
    The state survives :meth:`stop`, :meth:`kill` and :meth:`start`.

    The process is forked from one that has imported the program already, which takes a tenth of the time, unless it has a
    `socket_unit`, a `pythonpath` or a `twistd` (what Python runs) of its own: then, and where times and memory are measured
    (``preloaded=False``), it is started as its users start it.
    """

    def __init__(
        self,
        lan: Lan,
        plugins_dir: Path | None = None,
        *,
        place: str = "host",
        inside: Engine | None = None,
        arguments: tuple[str, ...] = DEFAULTS,
        environment: Mapping[str, str] | None = None,
        name: str = "macvlan-twisted",
        socket_unit: bool = False,
        pythonpath: Path | None = CHECKOUT,
        short_grace_periods: ShortGracePeriods | None = None,
        twistd: tuple[str, ...] = TWISTD,
        preloaded: bool = True,
        narrate: Narrate | None = None,
    ) -> None:
        """Prepare the service, which the engine knows by `name`; nothing exists before the `with` block."""
        self.lan = lan
        self.place = place if inside is None else inside.place
        self._inside = inside
        self.name = name
        self.narrate = narrate
        self.arguments = arguments
        self._plugins_dir = plugins_dir
        self._has_socket_unit = socket_unit
        self.socket_unit: SocketUnit | None = None
        self._environment = dict(environment or {})
        self._pythonpath = pythonpath
        self.short_grace_periods = short_grace_periods
        self._twistd = twistd
        self._is_preloaded = preloaded and not socket_unit and pythonpath == CHECKOUT and twistd == TWISTD
        self._more_words: tuple[str, ...] = ()
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        """Make a directory for the state and start the service; if that fails, all is removed again."""
        with ExitStack() as undo:
            self.directory = Path(tempfile.mkdtemp(prefix=f"{self.lan.tag}-plugin-"))
            undo.callback(shutil.rmtree, self.directory)
            self.state_dir = self.directory / "state"
            self.plugins_dir = self._plugins_dir or self.directory
            if self._has_socket_unit:
                self.socket_unit = SocketUnit(self.socket)
                undo.callback(self.socket_unit.close)
                self.socket_unit.open()
            self.service = self._service()
            undo.callback(self.service.kill)
            self.start()
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the service, kindly if the block went well, and remove its state."""
        with self._undo:
            if kind is None and self.service.running:
                self.stop()

    @property
    def socket(self) -> Path:
        """The socket on which the service hears the engine."""
        return self.plugins_dir / f"{self.name}.sock"

    @property
    def running(self) -> bool:
        """Whether the service runs."""
        return self.service.running

    def start(self, *words: str, seconds: float = 20) -> None:
        """Start the service, this time with `words` behind its arguments, and wait until it answers the engine's first question."""
        self._more_words = words
        self.service.command = self._command()  # the engine's surroundings are others after a reboot
        if self.socket_unit is not None:
            self.service.inherited = (self.socket_unit.descriptor,)
        self.service.start()
        self.service.wait_until(
            lambda: answers(self.socket, "POST", "/Plugin.Activate"), seconds, f"an answer on {self.socket}"
        )

    def stop(self, *, seconds: float = 20) -> None:
        """Ask the service to end (SIGTERM), wait for it, and insist on exit status 0."""
        status = self.service.terminate(seconds)
        if status != 0:
            raise RuntimeError(f"the plugin ended with status {status}:\n{self.log()}")

    def kill(self) -> None:
        """Kill the service (SIGKILL); :meth:`start` starts it again."""
        self.service.kill()

    def call(
        self, method: str, body: Mapping[str, Any] | None = None, *, seconds: float = 30
    ) -> dict[str, Any]:
        """Ask what an engine would ask, say ``NetworkDriver.Join``, and return the answer, errors included.

        Without a body none is sent, as in the engine's own first questions.
        """
        sent = b"" if body is None else json.dumps(body).encode() + b"\n"
        status, received = request(self.socket, "POST", f"/{method}", sent, timeout=seconds)
        answer = json.loads(received)
        if not isinstance(answer, dict):
            raise TypeError(f"{method} was answered with status {status} and {answer!r}, which is no object")
        return answer

    def log(self) -> str:
        """Return everything that the service has logged, over all its starts."""
        return self.service.log()

    def _service(self) -> Daemon:
        log = self.directory / "plugin.log"
        told = f"[{self.place}] {shlex.join(('twistd', *self._words()))}"
        if self._is_preloaded:
            return ForkedDaemon("the plugin", self._order, log=log, narrate=self.narrate, told=told)
        return Daemon(
            "the plugin", self._command(), log=log, env=self._environ(), narrate=self.narrate, told=told
        )

    def _order(self) -> dict[str, Any]:
        mounts = () if self._inside is None else (self._inside.window,)
        grace_periods = self.short_grace_periods
        return {
            "namespaces": [*mounts, self.lan.namespace_path(self.place)],
            "environment": self._environ(),
            "arguments": self._words(),
            "grace_periods": None if grace_periods is None else astuple(grace_periods),
        }

    def _command(self) -> tuple[str, ...]:
        enter = self.lan.enter(self.place) if self._inside is None else self._inside.beside()
        activating = () if self.socket_unit is None else self.socket_unit.activating()
        return (*enter, *activating, sys.executable, *self._program(), *self._words())

    def _program(self) -> tuple[str, ...]:
        if self.short_grace_periods is None:
            return self._twistd
        shorten = f"shorten_grace_periods({astuple(self.short_grace_periods)})"
        return (*TWISTD[:-1], f"from tests.lab.forked_twistd import *; {shorten}; {TWISTD[-1]}")

    def _words(self) -> tuple[str, ...]:
        places = ["--plugin-dir", str(self.plugins_dir), "--state-dir", str(self.state_dir)]
        places += ["--runtime-dir", str(self.directory / "run")]
        listen = () if self.socket_unit is None else ("--listen", ENDPOINT)
        return ("--nodaemon", "--pidfile=", "macvlan", *places, *listen, *self.arguments, *self._more_words)

    def _environ(self) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if not name.startswith("MACVLAN_TWISTED_")}
        if self._pythonpath is not None:
            ours["PYTHONPATH"] = str(self._pythonpath)
        return {**ours, **self._environment}
