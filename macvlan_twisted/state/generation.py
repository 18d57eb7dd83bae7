"""
Two files that repeat the generation of the database: one beside it, and one that lives until the next boot.

Both are written after each commit without waiting for the disk, so they may lag behind, but are never ahead. The one
beside the database shows that the last commits are lost. The other one is outside of the state directory, and shows that
the whole directory is lost, or was replaced by an older copy.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from zlib import crc32

from attrs import frozen
from twisted.logger import Logger

from ..errors import StateError
from ..failpoints import Failpoint
from .owner import Owner, read_small_file

_log = Logger(namespace="macvlan_twisted.state")

# Remedy of these errors: if you have an intact, up-to-date copy of the state directory, restore it; otherwise start the
# plugin once with --recover.

WITNESS_NAME = "generation"

_MAKE = Failpoint("state.generation.make", "the file that repeats the generation is made, empty")
_WRITE = Failpoint("state.generation.write", "the number of the last commit is repeated beside the database")
_BEGIN = Failpoint(
    "state.runtime_generation.make", "the file that repeats the generation until the next boot is made"
)
_FORGET = Failpoint(
    "state.runtime_generation.forget",
    "such a file of another state that was in the same directory is removed",
)
_REPEAT = Failpoint("state.runtime_generation.write", "the number of the last commit is repeated there")

_FORMER = struct.Struct(">QI")
"""The former format, without the instance."""
_BESIDE = struct.Struct(">Q16sI")
_OUTSIDE = struct.Struct(">4sQII")
_MAGIC = b"mvt1"
"""Ends with the version of the file. One of another version is not read: it is as if there were no such file."""
_LONGEST = _OUTSIDE.size + 4096
"""Bytes of the longest file of ours: a head and a path (PATH_MAX)."""


@frozen
class RecordedGeneration:
    """The contents of the file beside the database."""

    generation: int
    instance: str = ""
    """Empty in the former format."""


class GenerationFile:
    """The file beside the database."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def read(self) -> RecordedGeneration | None:
        """
        ``None`` if there is no such file.

        :raises StateError: it is damaged.
        """
        try:
            raw, _ = read_small_file(self._path, _LONGEST)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise StateError(f"{self._path} is damaged: {error}") from None
        if not raw:  # created by a process that was killed before its first commit
            return RecordedGeneration(0)
        if len(raw) not in (_FORMER.size, _BESIDE.size) or crc32(raw[:-4]) != int.from_bytes(raw[-4:]):
            raise StateError(f"{self._path} is damaged")
        name = raw[8:-4].rstrip(b"\0").decode("ascii", "replace")
        return RecordedGeneration(int.from_bytes(raw[:8]), name)

    def write(self, generation: int, instance: str) -> None:
        if self._file is None:
            with _MAKE:
                self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        packed = _BESIDE.pack(generation, instance.encode()[:16], 0)[:-4]
        with _WRITE:
            os.pwrite(self._file, packed + crc32(packed).to_bytes(4), 0)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


@frozen
class RuntimeRecord:
    """The contents of a file outside of the state directory, about one state since the host booted."""

    path: Path
    instance: str
    generation: int
    rows: int
    """The number of rows on which containers depend."""
    directory: str
    owner: Owner
    """The owner of the file, who thus wrote it."""


class RuntimeGeneration:
    """
    Files in a directory that lives until the next boot, one for each instance.

    Where the directory cannot be created, for lack of rights, nothing is recorded, and nothing fails.
    """

    def __init__(self, runtime: Path, directory: Path) -> None:
        self._runtime = runtime
        self._unresolved_directory = directory
        self._file: int | None = None

    @cached_property
    def _directory(self) -> str:
        return os.path.realpath(self._unresolved_directory)

    def all(self) -> Iterator[RuntimeRecord]:
        """The records that are readable and intact."""
        try:
            paths = sorted(self._runtime.iterdir())
        except OSError as error:
            _log.debug(
                "runtime directory {path}: cannot be used ({reason})",
                path=str(self._runtime),
                reason=error.strerror,
            )
            return
        for path in paths:
            record = None if path.name.startswith(".") else _read(path)
            if record is not None:
                yield record

    def of_instance(self, instance: str) -> RuntimeRecord | None:
        return next((each for each in self.all() if each.instance == instance), None)

    def of_directory(self) -> RuntimeRecord | None:
        """The state that was in our directory since the host booted."""
        return next((each for each in self.all() if each.directory == self._directory), None)

    def begin(self, instance: str, generation: int, rows: int) -> None:
        """Record *instance* from now on, and forget other states that were in our directory before."""
        try:
            for other in list(self.all()):
                if other.directory == self._directory and other.instance != instance:
                    with _FORGET:
                        other.path.unlink(missing_ok=True)
            beside = self._runtime / f".{instance}"
            with _BEGIN:
                self._runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
                beside.unlink(missing_ok=True)  # left by a start that was killed
                self._file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                os.write(self._file, _packed(generation, rows) + os.fsencode(self._directory))
                os.rename(beside, self._runtime / instance)
        except OSError as error:
            _log.debug(
                "runtime directory {path}: cannot be used ({reason})",
                path=str(self._runtime),
                reason=error.strerror,
            )

    def write(self, generation: int, rows: int) -> None:
        if self._file is not None:
            with _REPEAT:
                os.pwrite(self._file, _packed(generation, rows), 0)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _packed(generation: int, rows: int) -> bytes:
    packed = _OUTSIDE.pack(_MAGIC, generation, rows, 0)[:-4]
    return packed + crc32(packed).to_bytes(4)


def _read(path: Path) -> RuntimeRecord | None:
    try:
        raw, owner = read_small_file(path, _LONGEST)
    except (OSError, ValueError):
        return None
    head = raw[: _OUTSIDE.size]
    if len(head) < _OUTSIDE.size or head[:4] != _MAGIC or crc32(head[:-4]) != int.from_bytes(head[-4:]):
        return None
    _, generation, rows, _ = _OUTSIDE.unpack(head)
    directory = os.fsdecode(raw[_OUTSIDE.size :])
    if not directory.startswith("/") or "\0" in directory:
        return None
    return RuntimeRecord(path, path.name, generation, rows, directory, owner)
