"""Resources of a running service: memory, files, processor time; and how long a start took."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from tests.lab.commands import TookTooLong
from tests.lab.plugin import Plugin
from tests.lab.unix_http import answers

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Memory:
    """Bytes."""

    resident: int
    most: int


def memory(pid: int) -> Memory:
    """Return how much memory a process has, and had at most."""
    told = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    )
    return Memory(*(int(told[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM")))


def open_files(pid: int) -> int:
    """Return how many files a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def wake_ups(pid: int) -> int:
    """Return the number of voluntary context switches of its threads, which is how often they were woken."""
    found = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                found += int(line.split()[1])
    return found


def first_answer(plugin: Plugin, seconds: float = 30) -> float:
    """Start a service, and return how long it took until it answered the first question."""
    began = time.perf_counter()
    plugin.service.start()
    while not (plugin.socket.exists() and answers(plugin.socket, "POST", "/Plugin.Activate")):
        if not plugin.running or time.perf_counter() - began > seconds:
            raise TookTooLong(f"the plugin does not answer:\n{plugin.log()}")
        time.sleep(0.002)
    return time.perf_counter() - began
