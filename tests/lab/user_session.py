"""A user at a docker host: types commands, writes files, and has the plugin installed as the manual says."""

import os
import re
import shlex
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.commands import Finished, attempt, run
from tests.lab.daemons import Daemon
from tests.lab.engine import Engine
from tests.lab.plugin import CHECKOUT, TWISTD
from tests.lab.roots import PATH
from tests.lab.unix_http import answers

INSTALLED = "/opt/macvlan-twisted"
SETTINGS = "/etc/default/macvlan-twisted"
MACHINES = {"": "host", "laptop": "neighbour", "router": "gateway"}
"""Where the prompt says that a command is typed, and the place of the LAN that stands for it."""
SERVICE = re.compile(r"^sudo systemctl (?P<verb>start|stop|restart) macvlan-twisted(?:\.service)?$")
_LAB_ONLY = "WARNING: IPv4 forwarding is disabled. Networking will not work.\n"
"""What the lab's engine prints and a user's does not: the lab's engine may not change the machine's settings."""
_END = "--- the command has ended in "
_FURNISH = """
set -e
for name in etc opt var/lib; do
    mkdir -p "$0/upper/$name" "$0/work/$name"
    mount -t overlay overlay -o "lowerdir=/$name,upperdir=$0/upper/$name,workdir=$0/work/$name" "/$name"
done
rm -rf /opt/macvlan-twisted /var/lib/macvlan-twisted /etc/default/macvlan-twisted
mkdir "$0/run"
mount --rbind /run "$0/run"
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir /run/docker /run/netns
mount --rbind "$0/run/docker" /run/docker
mount --bind "$1" /run/docker/plugins
ln -s "$2" /run/docker.sock
echo furnished
exec sleep infinity
"""


class UserSession:
    """A user beside an engine, from the start of ``with UserSession(engine)`` to the end of that block.

    All that the commands write in /etc, /opt, /var/lib and /run is in a mount namespace of its own, and gone in the
    end. `docker` is the engine's own client, and `sudo` runs a command as it is, since the user is root. The
    plugin is "installed" in /opt/macvlan-twisted from the checkout, and is not running. `systemctl start`, `stop` and
    `restart` of the plugin start and end it with the settings in /etc/default, without systemd.
    """

    def __init__(self, engine: Engine) -> None:
        """Prepare the session; nothing exists before the `with` block."""
        self.engine = engine
        self.directory = engine.directory / "session"
        self.cwd = str(self.directory / "site")
        self._undo = ExitStack()
        self._jobs: list[Daemon] = []
        self._foreground: Daemon | None = None

    def __enter__(self) -> Self:
        """Make the namespace, and install the plugin."""
        with ExitStack() as undo:
            undo.callback(lambda: run("rm", "-rf", str(self.directory)))
            for name in ("site", "programs"):
                (self.directory / name).mkdir(parents=True)
            self.log = self.directory / "plugin.log"
            beside = self.engine.beside()
            own = ("unshare", "--mount", "--propagation", "slave", "--")
            words = (str(self.directory), str(self.engine.plugins_dir), str(self.engine.socket))
            self._keeper = Daemon("the user's session", (*beside, *own, "sh", "-c", _FURNISH, *words))
            undo.callback(self._keeper.kill)
            self._keeper.start()
            self._keeper.wait_for_log("furnished", seconds=20)
            self.install()
            undo.callback(self._end_jobs)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what still runs, the plugin among it, and remove all that was written."""
        self._undo.close()

    @property
    def plugin_log(self) -> str:
        """What the plugin has logged, over all its starts, without times."""
        text = self.log.read_text(encoding="utf-8") if self.log.exists() else ""
        return re.sub(r"(?m)^\S+ \[[^]]*\] ", "", text)

    def type(self, text: str, machine: str = "") -> Finished:
        """Run a command to its end; its output and its errors come together, in `stdout`."""
        if found := SERVICE.match(text):
            if found["verb"] != "start":
                self.interrupt()
            if found["verb"] != "stop":
                self.start_service()
            return Finished((text,), 0, "", "")
        script = f"exec 2>&1\n{text}\nstatus=$?\necho\necho '{_END}'\"$PWD\"\nexit $status"
        ended = attempt(*self._shell(script, machine), timeout=60, env=self._environment())
        output, end, cwd = ended.stdout.replace(_LAB_ONLY, "").rpartition(f"\n{_END}")
        if not end:
            return Finished((text,), ended.status, ended.stdout, "")
        if not machine:
            self.cwd = cwd.strip()
        return Finished((text,), ended.status, output, "")

    def start(self, text: str, machine: str = "") -> Daemon:
        """Start a command that runs on, in a terminal of its own or behind ``&``."""
        words = text.removeprefix("sudo ").removesuffix("&").strip()
        return self._job(f"exec 2>&1\nexec {words}", machine)

    def start_plugin(self, text: str) -> None:
        """Start the plugin by the user's own command, in the foreground of another terminal, until it answers."""
        self._run_plugin(f"exec {text.removeprefix('sudo ')}")

    def start_service(self) -> None:
        """Start the plugin with the settings of the system service, until it answers."""
        settings = f"set -a; [ ! -e {SETTINGS} ] || . {SETTINGS}; set +a"
        self._run_plugin(f"{settings}\nexec {INSTALLED}/bin/twistd --nodaemon --pidfile= macvlan")

    def _run_plugin(self, script: str) -> None:
        self._foreground = self._job(script, log=self.log)
        self._foreground.wait_until(self.plugin_answers, 20, "the plugin's first answer")

    def make_nginx(self) -> None:
        """Make an image `nginx`, in which busybox serves HTTP."""
        docker = self.engine.docker
        container = docker("create", "--network=none", "busybox").strip()
        docker("commit", "--change", 'CMD ["httpd", "-f"]', container, "nginx")
        docker("rm", container)

    def plugin_answers(self) -> bool:
        """Say whether the plugin answers the engine's first question."""
        return any(
            answers(socket, "POST", "/Plugin.Activate") for socket in self.engine.plugins_dir.glob("*.sock")
        )

    @property
    def plugin_runs(self) -> bool:
        """Whether the plugin was started and has not ended."""
        return self._foreground is not None and self._foreground.running

    def interrupt(self) -> None:
        """Have the plugin end, as Ctrl-C does."""
        if self._foreground is not None:
            self._foreground.send(signal.SIGINT)
            self._foreground.wait(20)

    def write(self, path: str, text: str) -> None:
        """Write a file; a relative path is one in the directory where commands run."""
        script = f'mkdir -p "$(dirname {shlex.quote(path)})" && cat > {shlex.quote(path)}'
        run(*self._shell(script), stdin=text.encode(), env=self._environment())

    def install(self) -> None:
        """Put programs into /opt/macvlan-twisted that run the checkout, and ours into the user's path."""
        twistd = shlex.join((sys.executable, *TWISTD))
        programs = {
            f"{INSTALLED}/bin/twistd": f'PYTHONPATH={CHECKOUT} exec {twistd} "$@"',
            f"{INSTALLED}/bin/python": f'PYTHONPATH={CHECKOUT} exec {sys.executable} "$@"',
            f"{INSTALLED}/bin/macvlan-twisted": (
                f'PYTHONPATH={CHECKOUT} exec {sys.executable} -P -m macvlan_twisted "$@"'
            ),
            f"{self.directory}/programs/sudo": 'exec "$@"',
            f"{self.directory}/programs/journalctl": f"cat {self.log}",
            f"{self.directory}/programs/docker": (
                f"PATH={PATH} exec {shlex.join(self.engine.among_its_files())} "
                'sh -c \'cd "$0" && exec docker "$@"\' "$PWD" "$@"'
            ),
        }
        share = f"{INSTALLED}/share/macvlan-twisted"
        script = f"mkdir -p {INSTALLED}/bin {share}\n"
        for path, text in programs.items():
            script += f"cat >{path} <<'END'\n#!/bin/sh\n{text}\nEND\nchmod +x {path}\n"
        for name in ("systemd", "network-managers"):
            script += f"ln -sfn {CHECKOUT}/{name} {share}/{name}\n"
        run(*self._shell(script), env=self._environment())

    def _shell(self, script: str, machine: str = "") -> tuple[str, ...]:
        network = self.engine.lan.namespace_path(MACHINES[machine])
        enter = ("nsenter", f"--mount=/proc/{self._keeper.pid}/ns/mnt", f"--net={network}", "--")
        return (*enter, "bash", "-c", f"cd {shlex.quote(self.cwd)} || exit\n{script}")

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("LANG", "HOME", "TERM") if name in os.environ}
        path = f"{self.directory}/programs:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {**kept, "PATH": path, "DOCKER_HOST": self.engine.docker_host}

    def _job(self, script: str, machine: str = "", log: Path | None = None) -> Daemon:
        job = Daemon(script, self._shell(script, machine), log=log, env=self._environment())
        self._jobs.append(job)
        job.start()
        return job

    def _end_jobs(self) -> None:
        for job in reversed(self._jobs):
            job.kill()
