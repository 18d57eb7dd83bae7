"""HTTP over a UNIX socket: how both the engine and our plugin are spoken to."""

import http.client
import socket
from collections.abc import Mapping
from pathlib import Path

from tests.lab.commands import SLACK


class UnixConnection(http.client.HTTPConnection):
    """An HTTP connection to a UNIX socket; the Host header is empty, as Engine 20.10 sends it."""

    def __init__(self, path: Path, timeout: float) -> None:
        """Prepare a connection; every read or write has `timeout` seconds, times the slack."""
        super().__init__("", timeout=timeout * SLACK)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def request(
    path: Path,
    method: str,
    target: str,
    body: bytes = b"",
    *,
    headers: Mapping[str, str] | None = None,
    timeout: float = 10,
) -> tuple[int, bytes]:
    """Send one request on a connection of its own, and return the status and the body of the answer."""
    connection = UnixConnection(path, timeout)
    try:
        connection.request(method, target, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def answers(path: Path, method: str, target: str) -> bool:
    """Say whether somebody listens on the socket and answers the request with status 200."""
    try:
        return request(path, method, target, timeout=2)[0] == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
