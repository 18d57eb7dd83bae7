"""Malformed and hostile bodies on the real socket of the real program."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

from tests.lab.commands import within
from tests.lab.docker_host import KEPT_TABLES, DockerHost
from tests.lab.engine import Engine
from tests.lab.lan import Lan
from tests.lab.plugin import Plugin
from tests.lab.requirements import missing_for_lan
from tests.lab.state_copy import copied
from tests.torture.lives import ProcessUsage
from tests.torture.mutations import Mutations
from tests.torture.part import Part, TortureRun

BODIES, SHORT_BODIES = 200_000, 5_000
CALLERS = 4
ROUND = 1000
"""After so many bodies what was acknowledged is undone, and everything is checked."""
PATIENCE = 60
MOST_GROWTH = 16 << 20
"""
Bytes that memory may grow by after the first quarter; the measured growth is reported as a figure. Large bodies leave
gaps in the allocator's heap: 74 MiB after 30,000 bodies, and no more after 60,000.
"""
LONGEST_LINE = 4096
"""The most bytes that a line of the log may have."""
LONGEST_REPLY = 16384
ARGUMENTS = (
    *("--host-interface", "eth1", "--gateway", "192.168.77.1", "--macvlan-subnet", "192.168.77.0/24"),
    *("--conflict-detection", "off", "--dhcp-timeout", "1", "--docker-host", "none"),
)
LINE = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[^ ]* \[[^]]*\] [^\x00-\x1f\x7f-\x9f]*$")
UNDO = ("NetworkID", "EndpointID")


class Hurt(Exception):
    """The plugin did what it must not."""


class Flood:
    """One caller with a connection of its own, which is opened anew when the plugin has closed it."""

    def __init__(self, plugin: Plugin, random: Random) -> None:
        """Nothing is sent yet."""
        self.mutations = Mutations(random)
        self.made: list[tuple[str, dict[str, str]]] = []
        """Acknowledged, and to be undone: the method that does it, and its body."""
        self.outcomes: Counter[str] = Counter()
        self._path = str(plugin.socket)
        self._random = random
        self._socket: socket.socket | None = None

    def one(self) -> None:
        """Send one body, and judge the reply."""
        method, raw = self.mutations.body()
        if self._random.random() < 0.06:
            self._hardly_a_request(method, raw)
            return
        status, answer = self.post(method, raw)
        if status != 200:
            if not 400 <= status < 500:
                raise Hurt(f"{method} {raw[:300]!r}: status {status} {answer[:300]!r}")
            self.outcomes[f"status {status}"] += 1
            return
        reply = self._judged(method, raw, answer)
        if "Err" in reply:
            self.outcomes["refused"] += 1
        else:
            self.outcomes["acknowledged"] += 1
            self._note(method, raw, reply)

    def _judged(self, method: str, raw: bytes, answer: bytes) -> dict[str, Any]:
        text = f"{method} {raw[:300]!r}: {answer[:300]!r}"
        try:
            reply = json.loads(answer)
        except ValueError:
            raise Hurt(f"{text} is no JSON") from None
        if not isinstance(reply, dict) or len(answer) > LONGEST_REPLY:
            raise Hurt(f"{text} has {len(answer)} bytes")
        if "Err" in reply and (not str(reply["Err"]).strip() or "bug in the plugin" in reply["Err"]):
            raise Hurt(text)
        return reply

    def _note(self, method: str, raw: bytes, reply: dict[str, Any]) -> None:
        """Note what now exists and must be undone; later bodies refer to it."""
        name = method.partition(".")[2]
        if name == "RequestPool":
            self.made.append(("IpamDriver.ReleasePool", {"PoolID": reply["PoolID"]}))
            self.mutations.known["PoolID"].append(reply["PoolID"])
        elif name in ("CreateNetwork", "CreateEndpoint"):
            body = json.loads(raw)
            about = {
                key: body[key] for key in ("NetworkID", "EndpointID") if key in body and key[0] in name[6]
            }
            if name == "CreateEndpoint":
                about = {"NetworkID": body["NetworkID"], "EndpointID": body["EndpointID"]}
            self.made.append((f"NetworkDriver.{name.replace('Create', 'Delete')}", about))
            for key, value in about.items():
                self.mutations.known[key].append(value)

    def undo(self) -> None:
        """Undo what was acknowledged, the last first."""
        wrong: list[str] = []
        while self.made:
            method, body = self.made.pop()
            status, answer = self.post(method, json.dumps(body).encode())
            if status != 200 or "Err" in json.loads(answer):
                wrong.append(
                    f"{method} {body}, which undoes what was acknowledged: {status} {answer[:300]!r}"
                )
        self.mutations.forget()
        if wrong:
            raise Hurt("; ".join(wrong))

    def post(self, method: str, raw: bytes) -> tuple[int, bytes]:
        """Make a well-formed request, which has to be answered."""
        request = f"POST /{method} HTTP/1.1\r\nHost: \r\nContent-Length: {len(raw)}\r\n\r\n".encode() + raw
        try:
            self._send(request)
            return self._receive()
        except OSError as error:
            self.close()
            raise Hurt(f"{method} {raw[:300]!r} ({len(raw)} bytes) got no answer: {error!r}") from None

    def _hardly_a_request(self, method: str, raw: bytes) -> None:
        """Send what is hardly a request: the plugin may hang up or answer, but not with an internal error."""
        if method == "IpamDriver.RequestPool":  # whoever hangs up will not hear the id of what was granted
            method = "IpamDriver.ReleasePool"
        request = self.mutations.request(method, raw)
        self.close()
        try:
            self._send(request)
            assert self._socket is not None
            self._socket.shutdown(socket.SHUT_WR)
            received = b""
            while data := self._socket.recv(1 << 16):
                received += data
        except TimeoutError:
            raise Hurt(f"{request[:300]!r} is waited for") from None
        except OSError:
            received = b""
        finally:
            self.close()
        self.outcomes["hardly requests"] += 1
        for status in re.findall(rb"HTTP/1\.[01] (\d+) ", received):
            if status.startswith(b"5") and status not in (b"501", b"505"):
                raise Hurt(f"{request[:300]!r}: {received[:300]!r}")
        if b"bug in the plugin" in received:
            raise Hurt(f"{request[:300]!r}: {received[:300]!r}")
        self._note_all(raw)

    def _note_all(self, raw: bytes) -> None:
        """Some of them are requests all the same, and take effect although the answer was not read."""
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError):
            return
        found = body if isinstance(body, dict) else {}
        network, endpoint = (found.get(key) if isinstance(found.get(key), str) else None for key in UNDO)
        if network and network.isalnum() and network.isascii() and len(network) <= 128:
            self.made.append(("NetworkDriver.DeleteNetwork", {"NetworkID": network}))
            if endpoint and endpoint.isalnum() and endpoint.isascii() and len(endpoint) <= 128:
                self.made.append(
                    ("NetworkDriver.DeleteEndpoint", {"NetworkID": network, "EndpointID": endpoint})
                )

    def _send(self, request: bytes) -> None:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(PATIENCE)
            self._socket.connect(self._path)
        try:
            self._socket.sendall(request)
        except (BrokenPipeError, ConnectionResetError):
            if len(request) < 1 << 20:  # a body that is too large is refused before its end
                raise

    def _receive(self) -> tuple[int, bytes]:
        assert self._socket is not None
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._more()
        head, _, body = received.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        headers = dict(line.lower().split(b": ", 1) for line in lines[1:])
        length = int(headers[b"content-length"])
        while len(body) < length:
            body += self._more()
        if headers.get(b"connection") == b"close":
            self.close()
        return int(lines[0].split()[1]), body

    def _more(self) -> bytes:
        assert self._socket is not None
        data = self._socket.recv(1 << 16)
        if not data:
            raise ConnectionError("the plugin hung up")
        return data

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Watch:
    """Observes the program from outside."""

    def __init__(self, plugin: Plugin) -> None:
        """Remember what there is."""
        self._plugin = plugin
        self._read = 0
        self._links = set(plugin.lan.host_links())
        self._rows = self.rows()
        self.most_lines = 0.0

    def rows(self) -> dict[str, list[Any]]:
        """Return what is on disk."""
        with copied(self._plugin.state_dir) as copy:
            assert copy is not None
            tables = [name for (name,) in copy.execute("SELECT name FROM sqlite_master WHERE type='table'")]
            return {
                name: sorted(copy.execute(f"SELECT * FROM {name}").fetchall(), key=str)
                for name in tables
                if name not in (*KEPT_TABLES, "identities", "conflicts")
            }

    def left_over(self) -> list[str]:
        """Return what was added or lost since the beginning."""
        left = [
            f"link {name}"
            for name in set(self._plugin.lan.host_links()) ^ self._links
            if not name.startswith("mvh")
        ]
        for table, rows in self.rows().items():
            left += [
                f"row of {table}: {str(row)[:300]}" for row in rows if row not in self._rows.get(table, [])
            ]
            left += [
                f"lost of {table}: {str(row)[:300]}" for row in self._rows.get(table, []) if row not in rows
            ]
        return left

    def log(self, bodies: int) -> list[str]:
        """What is wrong with the log since the last look."""
        text = self._plugin.log()
        new, self._read = text[self._read :], len(text)
        wrong = [text[-1500:] for text in re.findall(r"Traceback.*(?:\n\t.*)+", new)][:3]
        wrong += [word for word in ("Traceback", "Unhandled", "a bug in the plugin") if word in new]
        lines = new.splitlines() if new.isascii() else new.split("\n")
        self.most_lines = max(self.most_lines, len(new) / max(bodies, 1))
        wrong += [
            f"a line of {len(line)} bytes: {line[:200]!r}" for line in lines if len(line) > LONGEST_LINE
        ][:3]
        wrong += [f"a line with {line[:300]!r}" for line in lines if line and not LINE.match(line)][:3]
        return wrong


def sane_life(plugin: Plugin, number: int) -> None:
    """A container's life on a network of its own."""
    network, endpoint = f"{number:063x}d", f"{number:063x}e"
    generic = {"com.docker.network.generic": {"parent": "eth1"}}
    data = {"AddressSpace": "Other", "Pool": "10.250.0.0/24", "Gateway": "10.250.0.1/24"}
    about = {"NetworkID": network, "EndpointID": endpoint}
    interface = {"Address": "10.250.0.7/24", "AddressIPv6": "", "MacAddress": ""}
    calls = (
        ("CreateNetwork", {"NetworkID": network, "Options": generic, "IPv4Data": [data], "IPv6Data": []}),
        ("CreateEndpoint", {**about, "Interface": interface, "Options": {}}),
        ("Join", {**about, "SandboxKey": "/var/run/docker/netns/1"}),
        ("EndpointOperInfo", about),
        ("Leave", about),
        ("DeleteEndpoint", about),
        ("DeleteNetwork", {"NetworkID": network}),
    )
    for method, body in calls:
        answer = plugin.call(f"NetworkDriver.{method}", body)
        if "Err" in answer:
            raise Hurt(f"a sane {method} was refused: {answer['Err']}")


def run_part(torture: TortureRun) -> None:
    """All of it."""
    number, tally, lock = SHORT_BODIES if torture.short else BODIES, torture.tally, threading.Lock()
    with Lan(nics=2) as lan, Plugin(lan, arguments=ARGUMENTS) as plugin:
        watch = Watch(plugin)
        sane_life(plugin, 0)
        floods = [Flood(plugin, Random(torture.random.randrange(1 << 32))) for _ in range(CALLERS)]
        usages: list[ProcessUsage] = []

        def some(flood: Flood) -> None:
            for _ in range(ROUND // CALLERS):
                try:
                    flood.one()
                except Hurt as hurt:
                    with lock:
                        tally.lose(str(hurt))
                else:
                    with lock:
                        tally.survive()

        while not usages or (tally.tried < number and not torture.is_over):
            with ThreadPoolExecutor(CALLERS) as pool:
                list(pool.map(some, floods))
            try:
                for flood in reversed(floods):
                    flood.undo()
                sane_life(plugin, tally.tried)
            except Hurt as hurt:
                tally.lose(str(hurt))
            for left in settled(watch):
                tally.leak(left)
            for wrong in watch.log(ROUND):
                tally.lose(f"log: {wrong}")
            usages.append(ProcessUsage(plugin))
            torture.progress(number, f"{usages[-1].memory >> 10} KiB")
            if tally.lost + tally.leaked > 200:
                break
        outcomes: Counter[str] = Counter()
        for flood in floods:
            outcomes += flood.outcomes
            flood.close()
        first, last = usages[len(usages) // 4], usages[-1]
        tally.figures.update({name: str(count) for name, count in sorted(outcomes.items())})
        tally.figures["memory"] = (
            f"{first.memory >> 10} KiB, {last.memory - first.memory >> 10:+} KiB at the end"
        )
        tally.figures["descriptors, threads"] = (
            f"{first.descriptors}, {first.threads}; then {last.descriptors}, {last.threads}"
        )
        tally.figures["log"] = f"{watch.most_lines:.0f} bytes a body at the most"
        if last.memory - first.memory > MOST_GROWTH:
            tally.leak(tally.figures["memory"])
        if last.descriptors > first.descriptors + CALLERS or last.threads > first.threads:
            tally.leak(tally.figures["descriptors, threads"])
        plugin.stop()
        for left in DockerHost(Engine(lan), plugin).remains():
            tally.leak(left)


def settled(watch: Watch) -> list[str]:
    """Return what remains once retired links had time to go."""
    within(60, lambda: not watch.left_over())
    return watch.left_over()


PART = Part(
    "bodies",
    "malformed and hostile bodies on the real socket",
    run_part,
    short_seconds=40,
    seconds=900,
    missing=missing_for_lan,
    least=ROUND,
)
