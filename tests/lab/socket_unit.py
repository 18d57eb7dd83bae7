"""A listening socket that is there whether or not anybody serves it, as a socket unit of systemd's holds it."""

import select
import socket
import sys
from pathlib import Path

ACTIVATED = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_FDNAMES="plugin", LISTEN_PID=str(os.getpid()))
os.execvp(sys.argv[2], sys.argv[2:])
"""
ENDPOINT = "systemd:domain=UNIX:index=0"
"""What a program is told to listen on so that it takes the socket."""


class SocketUnit:
    """The socket at `path`, from :meth:`open` to :meth:`close`. What dials it, waits in its backlog."""

    def __init__(self, path: Path) -> None:
        """Prepare it; nothing exists yet."""
        self.path = path
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Listen, in the place of what an earlier boot may have left."""
        self.path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self.path))
        self.path.chmod(0o600)
        self._socket.listen(4096)

    def close(self) -> None:
        """Listen no more; who waits is turned away."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self.path.unlink(missing_ok=True)

    @property
    def descriptor(self) -> int:
        """The descriptor that the service inherits."""
        assert self._socket is not None
        return self._socket.fileno()

    def wait_for_call(self, seconds: float) -> bool:
        """Wait until somebody has dialled and waits: systemd starts the service then. Say whether that came."""
        return bool(select.select([self.descriptor], [], [], seconds)[0])

    def activating(self) -> tuple[str, ...]:
        """Say the words before a command that shall find the socket as systemd hands it over."""
        return (sys.executable, "-I", "-c", ACTIVATED, str(self.descriptor))
