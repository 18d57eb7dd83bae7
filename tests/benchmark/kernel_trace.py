"""What a process asks of the kernel, and for how long: from the kernel's own trace (tracefs), with hardly any cost for it.

``strace`` would stop the process at each system call, and ``perf trace`` is another program for the same tracepoints.
"""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

USUAL_PLACE = Path("/sys/kernel/tracing")
INITIAL_PID_NAMESPACE = 0xEFFFFFFC
"""The inode of the machine's own: PROC_PID_INIT_INO in the kernel's ``include/linux/proc_ns.h``."""
BUFFER = 16384
"""Kilobytes for each processor; a connect takes about ten."""
_LINE = re.compile(
    r"^\s*.+-(?P<thread>\d+)\s+\[\d+\]\s+\S+\s+(?P<at>\d+\.\d+): sys_(?P<call>\w+?)(?P<way>\(| -> )(?P<rest>.*)$"
)


@dataclass(frozen=True)
class SystemCall:
    """One system call; times in seconds of the monotonic clock, which :func:`time.perf_counter` shows, too."""

    name: str
    began: float
    ended: float


@dataclass
class Trace:
    """What was recorded; complete after the ``with`` block."""

    calls: list[SystemCall] = field(default_factory=list)


def missing_for_trace() -> str:
    """Return why this machine cannot trace system calls; empty if it can."""
    known = Path("/proc/filesystems").read_text(encoding="ascii").split()
    if "tracefs" not in known:
        return "this kernel has no tracefs"
    if Path("/proc/self/ns/pid").stat().st_ino != INITIAL_PID_NAMESPACE:
        return "system calls cannot be traced in a PID namespace: tracefs takes the machine's own process ids"
    return ""


@contextmanager
def tracing(pid: int, filters: dict[str, str]) -> Iterator[Trace]:
    """Record system calls of a process, of its threads, and of those that it begins meanwhile.

    :param filters: by system call: which of its *returns* count, in the words of the kernel's event filters; empty for all.
    :raises RuntimeError: the buffer was too small.
    """
    with ExitStack() as undo:
        root = _root(undo)
        instance = root / "instances" / f"macvlan-twisted-{os.getpid()}"
        instance.mkdir()
        undo.callback(instance.rmdir)
        _set(instance / "trace_clock", "mono")
        _set(instance / "buffer_size_kb", str(BUFFER))
        _set(instance / "options/event-fork", "1")
        _set(instance / "set_event_pid", " ".join(os.listdir(f"/proc/{pid}/task")))
        for name, which in filters.items():
            _set(instance / f"events/syscalls/sys_exit_{name}/filter", which or "0")
            for way in ("enter", "exit"):
                _set(instance / f"events/syscalls/sys_{way}_{name}/enable", "1")
        trace = Trace()
        yield trace
        _set(instance / "tracing_on", "0")
        for stats in instance.glob("per_cpu/cpu*/stats"):
            if "overrun: 0\n" not in stats.read_text(encoding="ascii"):
                raise RuntimeError("the kernel's trace buffer was too small")
        trace.calls += system_calls((instance / "trace").read_text(encoding="utf-8", errors="replace"))


def system_calls(text: str) -> Iterator[SystemCall]:
    """Read the kernel's trace: beginning and end of each system call are lines of their own."""
    began: dict[str, tuple[str, float]] = {}
    for line in text.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        thread, call, at = found["thread"], found["call"], float(found["at"])
        if found["way"] == "(":
            began[thread] = call, at
        elif thread in began and began[thread][0] == call:
            yield SystemCall(call, began.pop(thread)[1], at)


def _root(undo: ExitStack) -> Path:
    if (USUAL_PLACE / "instances").is_dir():
        return USUAL_PLACE
    place = undo.enter_context(tempfile.TemporaryDirectory(prefix="tracefs-"))
    subprocess.run(["mount", "-t", "tracefs", "tracefs", place], check=True)
    undo.callback(subprocess.run, ["umount", "--lazy", place], check=True)
    return Path(place)


def _set(file: Path, value: str) -> None:
    file.write_text(value, encoding="ascii")
