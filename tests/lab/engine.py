"""A private Docker Engine in a docker host of a throw-away LAN."""

import http.client
import json
import os
import shlex
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from tests.lab import cgroups
from tests.lab.busybox import find_busybox, write_archive
from tests.lab.commands import Finished, Narrate, attempt, run
from tests.lab.daemons import Daemon
from tests.lab.lan import Lan
from tests.lab.namespace_jail import Mounts, NamespaceJail
from tests.lab.roots import OWN_VERSION, PATH, root_of
from tests.lab.unix_http import answers, request


class Engine:
    """A Docker Engine, running from the start of ``with Engine(lan) as engine`` to the end of that block.

    Without a version it is the machine's own dockerd, such as "26.1" on Debian 13; the others come out of
    other Debian releases (:mod:`tests.lab.roots`). Everything that the engine keeps is in a temporary
    directory; it has neither bridge nor firewall rules. `extra` are further arguments of dockerd. With
    `external_containerd` its containerd is a daemon beside it, as under systemd, and survives :meth:`kill`;
    else it dies with dockerd.
    """

    def __init__(
        self,
        lan: Lan,
        version: str = OWN_VERSION,
        *,
        place: str = "host",
        live_restore: bool = False,
        external_containerd: bool = False,
        extra: tuple[str, ...] = (),
        narrate: Narrate | None = None,
    ) -> None:
        """Prepare an engine in a place of the LAN; nothing exists before the `with` block."""
        self.lan = lan
        self.place = place
        self.version = version
        self.live_restore = live_restore
        self.narrate = narrate
        self._extra = extra
        self._external_containerd = external_containerd
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        """Make the engine's surroundings and start it; if that fails, all is removed again."""
        with ExitStack() as undo:
            self._furnish(undo)
            self.start()
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the engine, its containerd and its containers at once, and remove all that they kept."""
        self._undo.close()

    @property
    def socket(self) -> Path:
        """The socket of the engine's API, usable from everywhere on the machine."""
        return self.directory / "docker.sock"

    @property
    def docker_host(self) -> str:
        """The socket in the words of ``DOCKER_HOST`` and of our ``--docker-host``."""
        return f"unix://{self.socket}"

    @property
    def running(self) -> bool:
        """Whether dockerd runs."""
        return self.dockerd.running

    def start(self, *, seconds: float = 90) -> None:
        """Start dockerd and wait until it answers.

        That takes about a second, but 30 and more when a plugin that it knows is absent.
        """
        if self.containerd is not None and not self.containerd.running:
            self.containerd.start()
            socket = self.directory / "containerd.sock"
            self.containerd.wait_until(socket.exists, 20, "containerd's socket")
        self.dockerd.start()
        self.dockerd.wait_until(
            lambda: answers(self.socket, "GET", "/_ping"), seconds, f"an answer on {self.socket}"
        )

    def stop(self, *, seconds: float = 90) -> None:
        """Ask dockerd to end (SIGTERM) and wait for it.

        Containers are stopped, unless `live_restore` was asked for.
        """
        status = self.dockerd.terminate(seconds)
        if status != 0:
            raise RuntimeError(f"dockerd ended with status {status}:\n{self.log_tail()}")

    def kill(self) -> None:
        """Kill dockerd (SIGKILL). Containers live on; :meth:`start` starts it again."""
        self.dockerd.kill()

    def cut_power(self) -> None:
        """End everything at once: dockerd, containerd, containers, and what they had mounted.

        Only what is on disk is left, and all is as after a boot, before anything has been started: :meth:`start`
        then starts the engine.
        """
        self._leave_cave()
        for daemon in (self.dockerd, self.containerd):
            if daemon is not None:
                daemon.kill()
        cgroups.remove(self.directory.name)
        for name in ("docker.sock", "dockerd.pid", "containerd.sock", "containerd.sock.ttrpc"):
            (self.directory / name).unlink(missing_ok=True)
        shutil.rmtree(self.directory / "containerd-state", ignore_errors=True)
        for left in self.plugins_dir.iterdir():
            left.unlink()
        self._enter_cave()

    def docker(self, *words: str, check: bool = True, timeout: float = 60) -> str:
        """Run the engine's own docker command-line client and return its standard output.

        With ``check=False`` an error is tolerated; to see it, use :meth:`attempt_docker`. Paths among `words`
        are looked up where the engine is: /tmp is the machine's own, most else need not be.
        """
        if not check:
            return self.attempt_docker(*words, timeout=timeout).stdout
        return run(
            *self._client(),
            *words,
            timeout=timeout,
            env=self._environment(),
            narrate=self.narrate,
            told=_told(words),
        )

    def attempt_docker(self, *words: str, timeout: float = 60) -> Finished:
        """Run the docker client, and answer how it ended, be it well or badly."""
        return attempt(
            *self._client(),
            *words,
            timeout=timeout,
            env=self._environment(),
            narrate=self.narrate,
            told=_told(words),
        )

    def docker_json(self, *words: str, timeout: float = 60) -> Any:
        """Run the docker client, and return what it printed as JSON, such as the list of `docker inspect`."""
        return json.loads(self.docker(*words, timeout=timeout))

    def beside(self) -> tuple[str, ...]:
        """Say the words to put before a command of the machine's so that it runs beside dockerd.

        In the docker host's network, and with the engine's ``/run/docker``: there it finds the sandboxes of the
        containers as ``/var/run/docker/netns/...``, as on a real host, whatever distribution the engine is from.
        """
        return self._cave.watch(network=self.lan.namespace_path(self.place))

    def among_its_files(self) -> tuple[str, ...]:
        """Say the words to put before a command so that it is the one of the engine's own distribution."""
        return self._cave.enter()

    @property
    def window(self) -> str:
        """The file of the mount namespace that :meth:`beside` enters."""
        return self._cave.window

    def load_busybox(self) -> None:
        """Make the image `busybox`, whose applets (sh, ip, ping, sleep, nc ...) are links in /bin."""
        busybox = find_busybox(Path("/"), *([self._root] if self._root else []))
        if busybox is None:
            raise RuntimeError("no statically linked busybox here: apt-get install busybox-static")
        archive = self.directory / "busybox.tar"
        write_archive(busybox, archive)
        self.docker("import", "--change", 'CMD ["sh"]', str(archive), "busybox")
        archive.unlink()

    def ask(self, method: str, target: str, body: Any = None, *, timeout: float = 60) -> Any:
        """Make one request of the engine's API, with `body` as JSON, and return the JSON of the answer.

        That takes a twentieth of what a start of the docker client does.

        :raises RuntimeError: the engine answered with an error.
        """
        sent = b"" if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        status, answer = request(self.socket, method, target, sent, headers=headers, timeout=timeout)
        if status >= http.client.BAD_REQUEST:
            raise RuntimeError(f"{method} {target}: {status} {answer.decode(errors='replace')}")
        return json.loads(answer) if answer.strip() else None

    def clear(self) -> None:
        """Remove every container and every network that somebody made."""
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(self._remove_container, self.ask("GET", "/containers/json?all=1")))
        try:
            self._remove_networks()
        except RuntimeError:
            # On a busy machine Engine 20.10 loses count of endpoints now and then, when many go at once. It
            # counts anew when it starts.
            self.stop()
            self.start()
            self._remove_networks()

    def _remove_container(self, container: dict[str, Any]) -> None:
        self.ask("DELETE", f"/containers/{container['Id']}?force=1&v=1", timeout=120)

    def _remove_networks(self) -> None:
        for network in self.ask("GET", f"/networks?filters={quote(json.dumps({'type': ['custom']}))}"):
            self.ask("DELETE", f"/networks/{network['Id']}", timeout=120)

    def log_tail(self, lines: int = 30) -> str:
        """Return the end of dockerd's log."""
        return self.dockerd.log_tail(lines)

    def _furnish(self, undo: ExitStack) -> None:
        self._root = root_of(self.version, self.narrate)
        self.directory = Path(tempfile.mkdtemp(prefix=f"{self.lan.tag}-engine-"))
        undo.callback(shutil.rmtree, self.directory)
        self.plugins_dir = self.directory / "plugins"
        for name in ("plugins", "client"):
            (self.directory / name).mkdir()
        # Engines before 23 keep a key; the place for it, /etc/docker, can only be changed in this file.
        config = (
            {"deprecated-key-path": f"{self.directory}/key.json"}
            if int(self.version.split(".")[0]) < 23
            else {}
        )
        (self.directory / "daemon.json").write_text(json.dumps(config), encoding="utf-8")
        undo.callback(cgroups.remove, self.directory.name)
        undo.callback(self._leave_cave)
        self.containerd: Daemon | None = None
        self._enter_cave()

    def _enter_cave(self) -> None:
        self._cave = NamespaceJail(
            Mounts(
                root=None if self._root is None else str(self._root),
                visible=(str(self.directory),),
                shared=("/run/docker",),
                empty=("/run/containerd", "/opt"),
                binds={"/run/docker/plugins": str(self.plugins_dir)},
            )
        )
        self._cave.open()
        self.containerd = self._containerd() if self._external_containerd else None
        self.dockerd = self._daemon("dockerd", self._dockerd_arguments(self.directory.name))

    def _leave_cave(self) -> None:
        cgroups.thaw(self.directory.name)
        self._cave.close()

    def _dockerd_arguments(self, cgroup: str) -> tuple[str, ...]:
        here = self.directory
        return (
            f"--host={self.docker_host}",
            f"--config-file={here}/daemon.json",
            f"--data-root={here}/data",
            f"--pidfile={here}/dockerd.pid",
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
            "--ip-forward=false",
            "--userland-proxy=false",
            f"--storage-driver={storage_driver()}",
            # systemd, if it is there, would misunderstand process ids of our private namespace
            "--exec-opt=native.cgroupdriver=cgroupfs",
            f"--cgroup-parent=/{cgroup}",
            *(["--live-restore"] if self.live_restore else []),
            *([f"--containerd={here}/containerd.sock"] if self._external_containerd else []),
            *self._extra,
        )

    def _containerd(self) -> Daemon:
        here = self.directory
        config = here / "containerd.toml"
        config.write_text(
            f"""version = 2
root = "{here}/containerd-data"
state = "{here}/containerd-state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = "{here}/containerd.sock"
""",
            encoding="utf-8",
        )
        return self._daemon("containerd", (f"--config={config}",))

    def _daemon(self, name: str, arguments: tuple[str, ...]) -> Daemon:
        enter = self._cave.enter(network=self.lan.namespace_path(self.place), processes=True)
        return Daemon(
            name,
            (*enter, name, *arguments),
            log=self.directory / f"{name}.log",
            env=self._environment(),
            narrate=self.narrate,
            told=f"[{self.place}] {shlex.join((name, *arguments))}",
            forks=True,
        )

    def _client(self) -> tuple[str, ...]:
        return (*self._cave.enter(), "docker", "-H", self.docker_host)

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("LANG", "TERM") if name in os.environ}
        return {
            **kept,
            "PATH": PATH,
            "HOME": "/root",
            "DOCKER_CONFIG": f"{self.directory}/client",
            # Tasks of a swarm would ask a registry for the image first, and wait 20 seconds for it.
            "DOCKER_SERVICE_PREFER_OFFLINE_IMAGE": "1",
        }


@cache
def storage_driver() -> str:
    """Return overlay2 if the kernel takes the temporary directory for it, else vfs, which works anywhere.

    With vfs an engine copies the whole image for each container, which costs more than all the rest of a start.
    """
    with tempfile.TemporaryDirectory() as place:
        for name in ("lower", "upper", "work", "merged"):
            Path(place, name).mkdir()
        options = f"lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work"
        mount = ("mount", "-t", "overlay", "overlay", "-o", options, f"{place}/merged")
        return "vfs" if attempt("unshare", "--mount", "--", *mount).status else "overlay2"


def _told(words: tuple[str, ...]) -> str:
    """Show a docker command as it would be typed by somebody whose DOCKER_HOST names our socket."""
    return shlex.join(("docker", *words))
