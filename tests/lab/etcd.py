"""Real etcd clusters on the LAN: members that can be stopped, killed, frozen, filled up and restored."""

import base64
import json
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.certificates import Authority, Certificate
from tests.lab.commands import Finished, attempt, run, wait_until
from tests.lab.daemons import Daemon
from tests.lab.etcd_binaries import OWN_VERSION, Binaries, binaries
from tests.lab.lan import Lan
from tests.lab.roots import PATH

CLIENT_PORT, PEER_PORT = 2379, 2380
PORT_STEP = 10
"""Between the ports of two members in the same place."""
HEARTBEAT, ELECTION = 100, 500
"""Milliseconds. A fifth of etcd's default election timeout; with it the shortest lease is one second."""
PATIENCE = ("--dial-timeout=10s", "--command-timeout=10s")
"""Of etcdctl, on a busy machine. Words of a command come later and prevail."""
QUICK_PASSWORDS = "--bcrypt-cost=4"
"""The lowest cost. With etcd's own, each run of etcdctl would keep the server busy for half a second."""
ROOT = "root"
"""The user that etcd demands before authentication can be enabled."""
ENVIRONMENT = {"PATH": PATH, "ETCDCTL_API": "3"}
"""Nothing else: every option of etcd could come from the environment, too."""


class Member:
    """One etcd server in one place of the LAN. What it has stored survives its end."""

    def __init__(
        self,
        lan: Lan,
        place: str,
        name: str,
        *,
        step: int,
        scheme: str,
        directory: Path,
        command: Callable[["Member"], tuple[str, ...]],
    ) -> None:
        """Choose the URLs; nothing runs yet.

        `step` counts the members before it in the same place, and `command` makes the command to start it with.
        """
        self.name = name
        self.place = place
        self.data = directory / name
        self.address = lan.addresses.of(place)[0].partition("/")[0]
        host = f"[{self.address}]" if ":" in self.address else self.address
        self.client_url = f"{scheme}://{host}:{CLIENT_PORT + step * PORT_STEP}"
        self.peer_url = f"http://{host}:{PEER_PORT + step * PORT_STEP}"
        self.paused = False
        self._command = command
        self._daemon = Daemon(f"etcd {name} in {place}", (), log=directory / f"{name}.log", env=ENVIRONMENT)

    @property
    def running(self) -> bool:
        """Whether the process is there, be it paused or not."""
        return self._daemon.running

    @property
    def pid(self) -> int:
        """The process id."""
        return self._daemon.pid

    def start(self) -> None:
        """Start the server; without a quorum of members it accepts connections, and answers nothing."""
        self._daemon.command = self._command(self)
        self._daemon.start()

    def stop(self) -> None:
        """Have the server end: it hands over the leadership first."""
        self.resume()
        if self.running:
            self._daemon.terminate(20)

    def kill(self) -> None:
        """End the server at once (SIGKILL), as a power failure does."""
        self._daemon.kill()
        self.paused = False

    def pause(self) -> None:
        """Freeze the server (SIGSTOP): the kernel still accepts connections for it, and nothing answers."""
        self._daemon.send(signal.SIGSTOP)
        self.paused = True

    def resume(self) -> None:
        """Let a frozen server go on."""
        self._daemon.send(signal.SIGCONT)
        self.paused = False

    def log(self) -> str:
        """Return what it has printed, over all its starts."""
        return self._daemon.log()


class Cluster:
    """An etcd cluster that runs between ``with Cluster(lan, places)`` and the end of that block.

    There is one member for each of the `places`; a place may be named several times. Members are called ``m0``,
    ``m1`` ..., and listen for clients at port 2379 of their place's first address, the second member of a place at
    2389, and so on. The traffic between members is never encrypted.
    """

    def __init__(
        self,
        lan: Lan,
        places: Iterable[str] = ("gateway",),
        *,
        version: str = OWN_VERSION,
        authority: Authority | None = None,
        client_certificates: bool = False,
        root_password: str = "",
        quota_bytes: int = 0,
        arguments: tuple[str, ...] = (),
    ) -> None:
        """Prepare a cluster.

        With an `authority` clients must use TLS, and with `client_certificates` must have one of its certificates.
        With a `root_password` authentication is enabled when the cluster first starts. `quota_bytes` is the size of
        the database at which etcd raises the alarm NOSPACE (0: etcd's default, 2 GiB). `arguments` are further
        options for every member.
        """
        self.authority = authority
        self.root_password = root_password
        self._lan = lan
        self._version = version
        self._programs: Binaries | None = None
        self._temporary = tempfile.TemporaryDirectory(prefix=f"{lan.tag}-etcd-")
        self._directory = Path(self._temporary.name)
        quota = (f"--quota-backend-bytes={quota_bytes}",) if quota_bytes else ()
        self._options = (*quota, *((QUICK_PASSWORDS,) if root_password else ()), *arguments)
        self._token = "lab"
        self._authenticated = False
        self._client: Certificate | None = None
        scheme = "https" if authority else "http"
        before: Counter[str] = Counter()
        self.members: list[Member] = []
        for number, place in enumerate(places):
            self.members.append(
                Member(
                    lan,
                    place,
                    f"m{number}",
                    step=before[place],
                    scheme=scheme,
                    directory=self._directory,
                    command=self._command,
                )
            )
            before[place] += 1
        self._tls_options = self._make_certificates(client_certificates)

    def __enter__(self) -> Self:
        """Start all members; on return the cluster serves."""
        try:
            self.start()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all members, and remove what they have stored."""
        self._close()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The client URLs of all members."""
        return tuple(member.client_url for member in self.members)

    @property
    def leader(self) -> Member:
        """The member that leads the others, as those that serve know it."""
        for member in self._serving():
            told = json.loads(self.etcdctl("endpoint", "status", "--write-out=json", member=member))
            status = told[0]["Status"]
            if status.get("leader") == status["header"]["member_id"]:
                return member
        raise RuntimeError("none of the members that serve is the leader")

    def start(self) -> None:
        """Start those members that do not run, and wait until each serves."""
        for member in self.members:
            if not member.running:
                member.start()
        self._wait_for([member for member in self.members if not member.paused], 20)
        if self.root_password and not self._authenticated:
            self.etcdctl("user", "add", f"{ROOT}:{self.root_password}")
            self.etcdctl("user", "grant-role", ROOT, "root")
            self.etcdctl("auth", "enable")
            self._authenticated = True

    def stop(self) -> None:
        """End all members; what they have stored stays."""
        for member in self.members:
            member.stop()

    def wait_until_healthy(self, *, seconds: float = 20) -> None:
        """Wait until every member that runs and is not paused can read, which needs a quorum."""
        self._wait_for(self._serving(), seconds)

    def etcdctl(self, *words: str, member: Member | None = None, timeout: float = 10) -> str:
        """Run etcdctl with a member, or the first that serves, and return its standard output."""
        return run(*self._etcdctl(words, member), timeout=timeout, env=ENVIRONMENT)

    def attempt_etcdctl(self, *words: str, member: Member | None = None, timeout: float = 10) -> Finished:
        """Run etcdctl, and answer how it ended, be it well or badly."""
        return attempt(*self._etcdctl(words, member), timeout=timeout, env=ENVIRONMENT)

    def get(self, prefix: str = "", *, member: Member | None = None) -> dict[str, str]:
        """Return the values of all keys that begin with `prefix`, by their keys."""
        told = json.loads(self.etcdctl("get", "--prefix", "--write-out=json", prefix, member=member))
        return {_text(pair["key"]): _text(pair.get("value", "")) for pair in told.get("kvs", ())}

    def save(self, snapshot: Path) -> None:
        """Write a snapshot of the whole store into a file, with the cluster running."""
        self.etcdctl("snapshot", "save", str(snapshot), timeout=60)

    def restore(self, snapshot: Path, *, token: str = "restored", arguments: tuple[str, ...] = ()) -> None:
        """Stop the cluster, and start it anew with what is in a snapshot.

        The cluster's id is computed from the `token` and the members' names and peer URLs: pass one that was not
        used before, or "lab" for the first id. `arguments` are further options of ``snapshot restore``.
        """
        self.stop()
        self._token = token
        for member in self.members:
            shutil.rmtree(member.data)
            restore = (str(self._binaries.restorer), "snapshot", "restore", str(snapshot), *arguments)
            run(*restore, f"--data-dir={member.data}", *self._identity(member), timeout=60, env=ENVIRONMENT)
        self.start()

    @property
    def _binaries(self) -> Binaries:
        if self._programs is None:
            self._programs = binaries(self._version, self._lan.narrate)
        return self._programs

    def _serving(self) -> list[Member]:
        return [member for member in self.members if member.running and not member.paused]

    def _wait_for(self, members: list[Member], seconds: float) -> None:
        wait_until(lambda: all(map(self._is_healthy, members)), seconds, "a healthy etcd cluster")

    def _is_healthy(self, member: Member) -> bool:
        if not member.running:
            raise RuntimeError(f"etcd {member.name} has ended:\n{member.log()[-3000:]}")
        return self.attempt_etcdctl("endpoint", "health", member=member).status == 0

    def _identity(self, member: Member) -> tuple[str, ...]:
        """Return the options that a new cluster and a restored one are made with."""
        peers = ",".join(f"{each.name}={each.peer_url}" for each in self.members)
        return (
            f"--name={member.name}",
            f"--initial-advertise-peer-urls={member.peer_url}",
            f"--initial-cluster={peers}",
            f"--initial-cluster-token={self._token}",
        )

    def _command(self, member: Member) -> tuple[str, ...]:
        return (
            *self._lan.enter(member.place),
            str(self._binaries.etcd),
            f"--data-dir={member.data}",
            f"--listen-client-urls={member.client_url}",
            f"--advertise-client-urls={member.client_url}",
            f"--listen-peer-urls={member.peer_url}",
            *self._identity(member),
            f"--heartbeat-interval={HEARTBEAT}",
            f"--election-timeout={ELECTION}",
            *self._tls_options,
            *self._options,
        )

    def _etcdctl(self, words: tuple[str, ...], member: Member | None) -> tuple[str, ...]:
        member = member or self._serving()[0]
        options = [f"--endpoints={member.client_url}", *PATIENCE]
        if self.authority:
            options += [f"--cacert={self.authority.own.certificate}"]
        if self._client:
            options += [f"--cert={self._client.certificate}", f"--key={self._client.key}"]
        if self._authenticated:
            options += [f"--user={ROOT}:{self.root_password}"]
        return (*self._lan.enter(member.place), str(self._binaries.etcdctl), *options, *words)

    def _make_certificates(self, client_certificates: bool) -> tuple[str, ...]:
        if self.authority is None:
            return ()
        addresses = tuple(dict.fromkeys(member.address for member in self.members))
        server = self.authority.issue("etcd", addresses)
        options: tuple[str, ...] = (f"--cert-file={server.certificate}", f"--key-file={server.key}")
        if client_certificates:
            self._client = self.authority.issue("etcdctl", common_name="")
            options += ("--client-cert-auth", f"--trusted-ca-file={self.authority.own.certificate}")
        return options

    def _close(self) -> None:
        for member in self.members:
            member.kill()
        self._temporary.cleanup()


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode()
