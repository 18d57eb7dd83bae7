"""Pipes out of the guest, read side by side until all are closed."""

import os
import selectors
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Self

READ_SIZE = 65536


class Pipe:
    """A pipe whose writing end is handed to a child."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self._writer_open = True

    def close_writer(self) -> None:
        """Give up our copy of the writing end, so that the child's death reads as the end of the pipe."""
        if self._writer_open:
            self._writer_open = False
            os.close(self.writer)

    def close(self) -> None:
        """Close what is still open of it."""
        self.close_writer()
        os.close(self.reader)

    @classmethod
    @contextmanager
    def several(cls, count: int) -> Iterator[list[Self]]:
        """So many pipes, closed at the end of the block."""
        with ExitStack() as stack:
            pipes = []
            for _ in range(count):
                pipe = cls()
                stack.callback(pipe.close)
                pipes.append(pipe)
            yield pipes


@dataclass(frozen=True)
class Chunk:
    """Bytes, and the pipe they came from."""

    pipe: Pipe
    data: bytes


def follow(selector: selectors.BaseSelector, pipes: Sequence[Pipe]) -> Iterator[Chunk]:
    """Yield what comes through the pipes, until all are closed."""
    for pipe in pipes:
        selector.register(pipe.reader, selectors.EVENT_READ, pipe)
    while selector.get_map():
        for key, _ in selector.select():
            data = os.read(key.fd, READ_SIZE)
            if data:
                yield Chunk(key.data, data)
            else:
                selector.unregister(key.fd)
