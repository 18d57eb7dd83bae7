"""A client that costs little: many keep-alive connections on one thread, requests made as bytes."""

import json
import selectors
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_HEAD = (
    "POST /%s HTTP/1.1\r\nHost: \r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: %d\r\n"
    "Accept: application/vnd.docker.plugins.v1.2+json\r\n\r\n"
)

Call = tuple[str, bytes]
"""A method, and the request that asks for it."""
Talk = Generator[Call, bytes, None]
"""The calls of one caller: it yields calls, and is sent the body of each reply."""


def call(method: str, body: Mapping[str, Any]) -> Call:
    """Make a request, as an engine writes it."""
    raw = json.dumps(body, separators=(",", ":")).encode() + b"\n"
    return method, (_HEAD % (method, len(raw))).encode() + raw


@dataclass
class Timing:
    """What a run of callers has measured."""

    seconds: float = 0.0
    client_seconds: float = 0.0
    """Of processor time that the client itself took."""
    latencies: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Seconds of each call, by method."""

    @property
    def calls(self) -> int:
        """How many were answered."""
        return sum(map(len, self.latencies.values()))

    @property
    def client(self) -> float:
        """Which share of a processor the client took."""
        return self.client_seconds / self.seconds

    @property
    def rate(self) -> float:
        """Calls a second."""
        return self.calls / self.seconds

    def add(self, other: "Timing") -> None:
        """Take in the latencies of another run."""
        for method, each in other.latencies.items():
            self.latencies[method] += each


class _Caller:
    """One connection, and the talk over it."""

    def __init__(self, path: Path, talk: Talk) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self._talk = talk
        self._received = b""
        self._method = ""
        self._sent = 0.0

    def begin(self) -> bool:
        """Send the first request; say whether there is one."""
        return self._say(next(self._talk, None))

    def go_on(self, timing: Timing) -> bool:
        """Receive; when an answer is whole send the next request. Say whether more is to come."""
        received = self.socket.recv(1 << 16)
        if not received:
            raise ConnectionError(f"{self._method} was cut off")
        self._received += received
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return True
        low = head.lower()
        at = low.index(b"content-length:") + 15
        end = low.find(b"\r", at)
        if len(body) < int(low[at : end if end >= 0 else None]):
            return True
        timing.latencies[self._method].append(time.perf_counter() - self._sent)
        if b'"Err"' in body or b'"Error"' in body:
            raise RuntimeError(f"{self._method}: {body.decode()}")
        self._received = b""
        try:
            return self._say(self._talk.send(body))
        except StopIteration:
            return False

    def _say(self, next_call: Call | None) -> bool:
        if next_call is None:
            return False
        self._method, request = next_call
        self._sent = time.perf_counter()
        self.socket.sendall(request)
        return True


def converse(path: Path, talks: Iterable[Talk]) -> Timing:
    """Hold all talks side by side, each over a connection of its own, until the last has ended."""
    timing = Timing()
    callers = [_Caller(path, talk) for talk in talks]
    began, client_began = time.perf_counter(), time.thread_time()
    try:
        with selectors.DefaultSelector() as selector:
            for each in callers:
                if each.begin():
                    selector.register(each.socket, selectors.EVENT_READ, each)
            while selector.get_map():
                for key, _ in selector.select(30) or _nothing_came():
                    if not key.data.go_on(timing):
                        selector.unregister(key.fileobj)
    finally:
        for each in callers:
            each.socket.close()
    timing.seconds = time.perf_counter() - began
    timing.client_seconds = time.thread_time() - client_began
    return timing


def ask(path: Path, method: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Make one call, and return the reply."""
    answered: list[bytes] = []

    def talk() -> Talk:
        answered.append((yield call(method, body)))

    converse(path, [talk()])
    answer: dict[str, Any] = json.loads(answered[0])
    return answer


def _nothing_came() -> list[Any]:
    raise TimeoutError("no answer came for 30 seconds")


def until(seconds: float, make: Callable[[], Talk]) -> Talk:
    """Repeat a series of calls for so long; the last one is finished."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        yield from make()
