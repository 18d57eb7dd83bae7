"""A plugin that refuses every call, in place of one that is not there.

An engine tries each call to an absent plugin for 15 seconds, up to four calls for a container, and then goes on as if
it had succeeded. It goes on the same way after an error, at once.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer

REPLY = b'{"Err": "refused by the lab"}'


class _Refusal(BaseHTTPRequestHandler):
    """Reads a request and refuses it."""

    def do_POST(self) -> None:
        """Reply with an error."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(500)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(REPLY)))
        self.end_headers()
        self.wfile.write(REPLY)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


class _Server(ThreadingUnixStreamServer):
    daemon_threads = True


@contextmanager
def refusing_plugin(socket: Path) -> Iterator[None]:
    """Listen on a plugin's socket during the block; the plugin itself must not run."""
    socket.unlink(missing_ok=True)
    with _Server(str(socket), _Refusal) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            socket.unlink()
