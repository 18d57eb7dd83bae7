"""HTTP as dockerd speaks it, byte for byte, over a UNIX socket.

No HTTP library would send a blank ``Host:``, leave out Content-Type, or let a test see that a reply lacks
its Content-Length; so this is done by hand.
"""

from __future__ import annotations

import json
import select
import socket
from typing import Any

from attrs import frozen

from .recording import Headers

#: Seconds. dockerd waits for ever; nothing that is replayed here has a reason to take this long.
PATIENCE = 200.0

_MEGABYTE = 1 << 20


class NoReply(Exception):
    """The service closed the connection, or did not reply in time."""


@frozen
class Reply:
    """One reply as it came off the wire, header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_well_framed: bool = True

    @property
    def json(self) -> Any:
        """The body as JSON; None if it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


def request_bytes(method: str, headers: Headers, body: str) -> bytes:
    """One request, with the headers in dockerd's order and the length where dockerd puts it."""
    payload = body.encode()
    lines = [f"POST /{method} HTTP/1.1"]
    lines += [f"{name}: {len(payload) if value is None else value}" for name, value in headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + payload


class Connection:
    """One keep-alive connection; it dials when it is first used, and again after it was lost while idle."""

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path
        self._socket: socket.socket | None = None
        self._unread = b""

    def open(self) -> None:
        """Connect now."""
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.settimeout(PATIENCE)
            self._socket.connect(self._socket_path)
            self._unread = b""

    def is_dead(self) -> bool:
        """Whether the service has closed the idle connection; Go's client notices that, too."""
        if self._socket is None:
            return False
        readable, _, _ = select.select([self._socket], [], [], 0)
        return bool(readable) and not self._unread

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def send(self, request: bytes) -> None:
        """Write a request and do not wait for its answer."""
        self.open()
        assert self._socket is not None
        try:
            self._socket.sendall(request)
        except OSError as error:
            self.close()
            raise NoReply(f"the service did not take the request: {error}") from error

    def receive(self) -> Reply:
        """Wait for one answer."""
        try:
            head = self._read_until(b"\r\n\r\n")
            status_line, *header_lines = head.decode("latin-1").split("\r\n")
            headers = {
                name.strip().lower(): value.strip()
                for name, _, value in (line.partition(":") for line in header_lines if line)
            }
            status = int(status_line.split(" ")[1])
            if "content-length" not in headers:
                return Reply(status, headers, self._read_to_the_end(), is_well_framed=False)
            body = self._read_exactly(int(headers["content-length"]))
        except OSError as error:
            self.close()
            raise NoReply(f"no answer: {error}") from error
        if headers.get("connection", "").lower() == "close" or status_line.startswith("HTTP/1.0"):
            self.close()
        return Reply(status, headers, body)

    def exchange(self, request: bytes) -> Reply:
        """Send one request and wait for its answer."""
        self.send(request)
        return self.receive()

    def _more(self) -> bytes:
        assert self._socket is not None
        data = self._socket.recv(_MEGABYTE)
        if not data:
            self.close()
            raise NoReply(f"the service closed the connection after {self._unread!r}")
        return data

    def _read_until(self, end: bytes) -> bytes:
        while end not in self._unread:
            self._unread += self._more()
        head, _, self._unread = self._unread.partition(end)
        return head

    def _read_exactly(self, length: int) -> bytes:
        while len(self._unread) < length:
            self._unread += self._more()
        body, self._unread = self._unread[:length], self._unread[length:]
        return body

    def _read_to_the_end(self) -> bytes:
        assert self._socket is not None
        body, self._unread = self._unread, b""
        while data := self._socket.recv(_MEGABYTE):
            body += data
        self.close()
        return body
