"""Removing the control groups of an engine that is gone."""

import os
import time
from contextlib import suppress
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")


def remove(name: str) -> None:
    """Remove the top-level group `name`, with all below it, from every hierarchy, version 1 and 2 alike.

    The kernel lets go of a group a moment after its last process: for up to two seconds we try again.
    """
    deadline = time.monotonic() + 2
    while left := [top for top in (MOUNT / name, *MOUNT.glob(f"*/{name}")) if not _remove_tree(top)]:
        if time.monotonic() > deadline:
            raise OSError(f"control groups still in use: {', '.join(map(str, left))}")
        time.sleep(0.05)


def thaw(name: str) -> None:
    """Let the processes of paused containers below the top-level group `name` go on: a frozen one cannot be killed."""
    for file in MOUNT.glob(f"freezer/{name}/*/freezer.state"):
        file.write_text("THAWED", encoding="ascii")
    for file in (*MOUNT.glob(f"{name}/*/cgroup.freeze"), *MOUNT.glob(f"unified/{name}/*/cgroup.freeze")):
        file.write_text("0", encoding="ascii")


def _remove_tree(top: Path) -> bool:
    for directory, _, _ in os.walk(top, topdown=False):
        with suppress(OSError):
            os.rmdir(directory)
    return not top.exists()
