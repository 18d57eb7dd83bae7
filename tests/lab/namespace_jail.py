"""Private mount and process-id namespaces: what is started in a cave can neither get out nor outlive it."""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.lab.daemons import Daemon, children_of


@dataclass(frozen=True)
class Mounts:
    """What the file system looks like from inside a cave; all else is as on the machine."""

    root: str | None = None
    """The directory that is / inside, or None for the machine's own /."""
    visible: tuple[str, ...] = ()
    """Directories of the machine that must be seen at the same path inside another root."""
    empty: tuple[str, ...] = ()
    """Paths over which a fresh tmpfs is mounted."""
    shared: tuple[str, ...] = ()
    """Such paths of which the cave's window shows what is mounted below them inside."""
    binds: dict[str, str] = field(default_factory=dict)
    """Paths inside, and the directories that are seen there."""


class NamespaceJail:
    """A pair of private namespaces, open from :meth:`open` to :meth:`close`.

    Its first process waits for the end of its standard input, a pipe that we hold. So the cave ends, with
    every process in it, when we close it, and also when we are killed: the kernel then closes the pipe for
    us, and ends a process-id namespace with its first process. Mounts of the machine reach the cave, never
    the other way round.
    """

    def __init__(self, furniture: Mounts) -> None:
        """Prepare a cave."""
        keeper = (sys.executable, "-I", str(Path(__file__).with_name("namespace_jail_keeper.py")))
        own = ("unshare", "--mount", "--propagation", "slave", "--pid", "--fork", "--kill-child", "--")
        command = (*own, *keeper, json.dumps(asdict(furniture)))
        self._keeper = Daemon("the cave's keeper", command, forks=True, stdin=subprocess.PIPE)
        self._has_window = bool(furniture.shared)
        self._window = 0

    def open(self) -> None:
        """Make the namespaces and furnish them."""
        try:
            self._keeper.start()
            self._keeper.wait_for_log("the cave is furnished", seconds=20)
            if self._has_window:  # later there will be other children: orphans of what ran in the cave
                (self._window,) = children_of(self._keeper.pid)
        except BaseException:
            self._keeper.kill()
            raise

    def close(self) -> None:
        """End everything inside; on return no process is left, and all of its mounts are gone."""
        if self._keeper.running:
            self._keeper.stdin.close()
            self._keeper.wait(20)

    def enter(self, *, network: str | None = None, processes: bool = False) -> tuple[str, ...]:
        """Say the words to put before a command so that it runs in the cave.

        `network` is the file of a network namespace to enter too. With `processes` the command also joins the
        process-id namespace, by which it ends with the cave; `nsenter` then stays as its parent outside.
        """
        proc = f"/proc/{self._keeper.pid}/ns"
        words = ["nsenter", f"--mount={proc}/mnt"]
        words += [f"--pid={proc}/pid"] if processes else []
        words += [f"--net={network}"] if network else []
        return (*words, "--")

    def watch(self, *, network: str) -> tuple[str, ...]:
        """Say the words to put before a command so that it runs at the cave's window, in a network namespace.

        It finds the machine's own file system there, as outside, but for the `shared` paths, which are those of
        the cave.
        """
        return ("nsenter", f"--mount={self.window}", f"--net={network}", "--")

    @property
    def window(self) -> str:
        """The file of the window's mount namespace."""
        if not self._window:
            raise RuntimeError("this cave has no window: it is closed, or nothing is shared")
        return f"/proc/{self._window}/ns/mnt"
