"""What a call costs a program that does nothing but compute: what is slower than usual there, is so because of the machine.

Run as a program it answers each request on a UNIX socket, after a fifth of a millisecond of Python: no disk, no netlink, no
thread, and nothing that it keeps.
"""

import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

METHOD = "nothing"
_TURNS = 20
_WORK = {str(number): [number, str(number), None] for number in range(8)}
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}\n"


def serve(descriptor: int) -> None:
    """Answer one caller after the other, on a socket that listens already."""
    with socket.socket(fileno=descriptor) as listening:
        while True:
            connection, _ = listening.accept()
            with connection:
                while connection.recv(1 << 16):
                    for _ in range(_TURNS):
                        json.loads(json.dumps(_WORK))
                    connection.sendall(_ANSWER)


@contextmanager
def bare() -> Iterator[Path]:
    """Such a program, and the socket on which it listens."""
    with (
        tempfile.TemporaryDirectory(prefix="mvt-bare-") as directory,
        socket.socket(socket.AF_UNIX) as listening,
    ):
        path = Path(directory) / "bare.sock"
        listening.bind(str(path))
        listening.listen()
        handed_over = listening.fileno()
        command = [sys.executable, "-I", __file__, str(handed_over)]
        with subprocess.Popen(command, pass_fds=(handed_over,)) as program:
            try:
                yield path
            finally:
                program.kill()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
