"""Which of the capabilities that the plugin needs this process lacks."""

from __future__ import annotations

from pathlib import Path

NEEDED = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13}
"""Numbers of include/uapi/linux/capability.h: links, addresses and routes need the first, packet sockets the second."""


def missing_capabilities(status: Path = Path("/proc/self/status")) -> list[str]:
    """
    The names of those that are not effective.

    :param status: proc_pid_status(5) of the process.
    """
    (mask,) = [
        int(line.split()[1], 16)
        for line in status.read_text("utf-8").splitlines()
        if line.startswith("CapEff:")
    ]
    return [name for name, number in NEEDED.items() if not mask >> number & 1]
