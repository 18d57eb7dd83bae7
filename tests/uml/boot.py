"""Boot one user-mode Linux, run pytest in it, and return what pytest returned.

    python -m tests.uml.boot [--memory SIZE] [--console] [pytest's arguments]

The guest's root is the host's own file system, so that pytest, this virtual environment and Docker Engine
need no image of their own. Nothing is written there: the guest mounts it read-only, and ``jail.sh`` makes it
read-only for the guest's processes too. Neither KVM nor a network is needed; root is, for the jail.

Three pipes lead out of the guest: the tests' output, pytest's exit status, and the kernel's console, which is
kept back and shown only when the guest dies without a status, or is interrupted. Nothing ends a guest that hangs but
an interrupt: bin/test sends one when the tests have printed nothing for a while.
"""

import argparse
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from tests.uml.pipes import Pipe, follow

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
MODULES = Path("/usr/lib/uml/modules")
"""Where Debian's package keeps the modules of its kernel, outside the host's own /lib/modules."""

UNAVAILABLE = 69  # EX_UNAVAILABLE of sysexits.h
DIED = 70  # EX_SOFTWARE: the guest ended without telling a status
INTERRUPTED = 130

CONSOLE_LINES = 60
"""How much of the kernel's console is worth showing when the guest has died."""


def missing() -> str | None:
    """What keeps a guest from booting here, with the remedy, or None."""
    if shutil.which("linux") is None or not MODULES.is_dir():
        return "there is no kernel to boot (package user-mode-linux): apt-get install user-mode-linux"
    if has_wide_registers() and shutil.which("gcc") is None:
        return "this processor has AMX, and the guest needs gcc for that (wide_registers.c): apt-get install gcc libc6-dev"
    if os.geteuid() != 0:
        return "only root may shut the guest's processes into namespaces of their own: run this as root"
    return None


def has_wide_registers() -> bool:
    """Whether the processor has more registers than Debian's user-mode Linux has room for."""
    return " amx_tile" in Path("/proc/cpuinfo").read_text()


def preloaded(exchange: Path) -> list[str]:
    """What stands before the guest's kernel on the command line, so that it lives with wide registers."""
    if not has_wide_registers():
        return []
    library = exchange / "wide_registers.so"
    source = HERE / "wide_registers.c"
    subprocess.run(("gcc", "-O1", "-Wall", "-shared", "-fPIC", "-o", library, source), check=True)
    return ["env", f"LD_PRELOAD={library}"]


def job(pytest_args: Sequence[str]) -> str:
    """The script that the guest runs: the same interpreter, in the same checkout, in a bare environment."""
    environment = {
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "MACVLAN_TWISTED_UML": "1",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # none is needed, and imports take long here
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(CHECKOUT),
        "PYTHONUNBUFFERED": "1",
        "TERM": os.environ.get("TERM", "dumb"),
        "MACVLAN_TWISTED_TEST_ALL": os.environ.get("MACVLAN_TWISTED_TEST_ALL", "0"),
        "COLUMNS": str(shutil.get_terminal_size().columns),
    }
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    command.append("--color=yes" if sys.stdout.isatty() else "--color=no")
    command += pytest_args
    if not any(arg.startswith("tests/") for arg in pytest_args):
        command.append("tests/uml/inside")
    config = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
    return f"cd {shlex.quote(str(CHECKOUT))} && exec env -i {' '.join(config)} {shlex.join(command)}\n"


def hidden_paths(exchange: Path) -> list[str]:
    """What the guest needs although it lies in /tmp, where the guest has a file system of its own."""
    needed = {str(CHECKOUT), sys.prefix, sys.base_prefix, str(exchange)}
    return sorted(path for path in needed if path.startswith("/tmp/"))


def command_line(exchange: Path, memory: str, output: Pipe, status: Pipe, console: Pipe) -> list[str]:
    """The guest as a command of the host, in a mount and a PID namespace that die with it, and it with us."""
    return [
        # At each system call two processes of the guest hand over to each other. On one processor that takes half the
        # time; and behind others that compute each of these switches would wait.
        *("taskset", "--cpu-list", str(max(os.sched_getaffinity(0)))),
        *("chrt", "--rr", "1"),
        *("setpriv", "--pdeathsig", "KILL"),
        *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
        *("sh", str(HERE / "jail.sh"), f"{exchange}/scratch", memory),
        *preloaded(exchange),
        *("linux", f"mem={memory}", f"uml_dir={exchange}/scratch"),
        *("root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "quiet"),
        *("con=null", f"con0=null,fd:{console.writer}"),
        *("ssl=null", f"ssl0=null,fd:{output.writer}", f"ssl1=null,fd:{status.writer}"),
        f"init={exchange}/init",
    ]


@contextmanager
def guest(pytest_args: Sequence[str], memory: str) -> Iterator[tuple[Pipe, Pipe, Pipe]]:
    """A booting guest: the pipes of its output, its status and its console. It does not outlive the block."""
    with tempfile.TemporaryDirectory(prefix="macvlan-twisted-uml-") as directory, Pipe.several(3) as pipes:
        exchange = Path(directory)
        (exchange / "scratch").mkdir()
        (exchange / "job").write_text(job(pytest_args))
        (exchange / "keep").write_text("".join(f"{path}\n" for path in hidden_paths(exchange)))
        shutil.copy(HERE / "guest.sh", exchange / "init")
        (exchange / "init").chmod(0o755)
        output, status, console = pipes
        process = subprocess.Popen(
            command_line(exchange, memory, output, status, console),
            stdin=subprocess.DEVNULL,
            stdout=console.writer,
            stderr=console.writer,
            pass_fds=[pipe.writer for pipe in pipes],
            start_new_session=True,  # or else Ctrl-C would reach the guest too, as a key of its console
        )
        try:
            for pipe in pipes:
                pipe.close_writer()
            yield output, status, console
        finally:
            process.kill()  # this is unshare, whose --kill-child takes along the PID namespace with all in it
            process.wait()


def run(pytest_args: Sequence[str], memory: str, show_console: bool) -> int:
    """Boot, copy the tests' output to ours, and return pytest's status or one of this module's."""
    console_tail: deque[bytes] = deque(maxlen=CONSOLE_LINES)
    reported = b""
    verdict = INTERRUPTED
    try:
        with guest(pytest_args, memory) as (output, status, console), selectors.DefaultSelector() as selector:
            for chunk in follow(selector, [output, status, console]):
                if chunk.pipe is output:
                    sys.stdout.buffer.write(chunk.data)
                    sys.stdout.flush()
                elif chunk.pipe is status:
                    reported += chunk.data
                else:
                    console_tail.extend(chunk.data.splitlines(keepends=True))
                    if show_console:
                        sys.stderr.buffer.write(chunk.data)
            verdict = int(reported) if reported.strip().isdigit() else DIED
    except KeyboardInterrupt:
        print("\numl: interrupted", file=sys.stderr)
    if verdict in (INTERRUPTED, DIED) and not show_console:
        print("uml: the end of the kernel's console:", file=sys.stderr)
        sys.stderr.flush()
        sys.stderr.buffer.write(b"".join(console_tail))
        sys.stderr.flush()
    return verdict


def terminated(_signal: int, _frame: FrameType | None) -> None:
    """Leave as Ctrl-C does, through every ``finally``."""
    raise KeyboardInterrupt


def main(arguments: Sequence[str]) -> int:
    """Run the guest that the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.uml.boot", description=__doc__.partition("\n")[0], allow_abbrev=False,
        epilog="Every other argument is pytest's.",
    )  # fmt: skip
    parser.add_argument("--memory", default="1024M", help="the guest's memory (1024M), its /tmp included")
    parser.add_argument("--console", action="store_true", help="show the guest kernel's console on stderr")
    options, pytest_args = parser.parse_known_args(arguments)
    obstacle = missing()
    if obstacle is not None:
        print(f"uml: {obstacle}", file=sys.stderr)
        return UNAVAILABLE
    signal.signal(signal.SIGTERM, terminated)
    return run(pytest_args, options.memory, options.console)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
