"""An image without a registry: the statically linked busybox in a tar archive."""

import io
import tarfile
from pathlib import Path

APPLETS = (
    "arp arping ash awk basename cat chmod chown cp cut date dd df echo env false find grep head hostname httpd id "
    "ifconfig ip kill ls mkdir mktemp mount mv nc netstat nslookup ping ping6 printf ps rm route sed seq sh sleep sort "
    "stat sysctl tail test time timeout top touch tr traceroute true umount wc wget which xargs yes"
)
"""What somebody who looks around in a container types. An engine with vfs copies each link for each container."""
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
    """Write a tar archive with busybox and a symbolic link for each of the :data:`APPLETS`."""
    with tarfile.open(archive, "w") as tar:
        for name in DIRECTORIES:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        program = busybox.read_bytes()
        entry = tarfile.TarInfo("bin/busybox")
        entry.size, entry.mode = len(program), 0o755
        tar.addfile(entry, io.BytesIO(program))
        for applet in APPLETS.split():
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
