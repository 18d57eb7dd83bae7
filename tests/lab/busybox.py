"""An image without a registry: the statically linked busybox in a tar archive."""

import io
import tarfile
from pathlib import Path

from tests.lab.commands import run

DIRECTORIES = ("bin", "dev", "etc", "proc", "root", "sys", "tmp")


def find_busybox(*roots: Path) -> Path | None:
    """Return the first statically linked busybox below `roots`, or None."""
    for root in roots:
        for place in ("bin/busybox", "usr/bin/busybox"):
            path = root / place
            if path.is_file() and b"/ld-linux" not in path.read_bytes():
                return path
    return None


def write_archive(busybox: Path, archive: Path) -> None:
    """Write a tar archive with busybox and a symbolic link for each of its applets."""
    with tarfile.open(archive, "w") as tar:
        for name in DIRECTORIES:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        program = busybox.read_bytes()
        entry = tarfile.TarInfo("bin/busybox")
        entry.size, entry.mode = len(program), 0o755
        tar.addfile(entry, io.BytesIO(program))
        for applet in run(str(busybox), "--list").split():
            if applet != "busybox":
                entry = tarfile.TarInfo(f"bin/{applet}")
                entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(entry)
