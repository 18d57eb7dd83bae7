"""The product runs no programs, evaluates no text and unpickles nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

TOP = Path(__file__).resolve().parents[2]
MODULES = {"subprocess", "pty", "pickle", "marshal", "shelve", "dill", "yaml", "code", "codeop"}
MODULES |= {"tempfile", "commands"}
CALLS = {"eval", "exec", "compile", "__import__", "system", "popen", "mktemp", "spawnProcess"}
CALLS |= {
    "getProcessOutput",
    "fork",
    "forkpty",
    "posix_spawn",
    "posix_spawnp",
    "fromPickle",
    "jelly",
    "unjelly",
}
PREFIXES = ("exec", "spawn")
"""Prefixes of functions of ``os``."""
ALLOWED = {
    ("ctypes", "macvlan_twisted/clock.py"),  # os.timerfd_create is new in Python 3.13
    ("ctypes", "macvlan_twisted/netlink/netns.py"),  # os.setns is new in Python 3.12
    ("ctypes", "macvlan_twisted/commands/stale_sandboxes.py"),  # for umount2
    ("ctypes", "macvlan_twisted/lan/packet_filter.py"),  # for the address of a packet filter
}


def found_in(tree: ast.AST) -> Iterator[str]:
    """The names in a module that are not allowed, and ctypes."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [each.name.partition(".")[0] for each in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [(node.module or "").partition(".")[0]]
            names += [each.name for each in node.names if each.name in CALLS]
        yield from (each for each in names if each in MODULES | CALLS | {"ctypes"})
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            of = getattr(node.func.value, "id", "") if isinstance(node.func, ast.Attribute) else ""
            if (name in CALLS and of != "re") or (of == "os" and name.startswith(PREFIXES)):
                yield name
            if any(each.arg == "shell" for each in node.keywords):
                yield "shell="


class NoShellTests(SynchronousTestCase):
    def test_no_module_makes_such_a_call(self) -> None:
        files = [*(TOP / "macvlan_twisted").rglob("*.py"), *(TOP / "twisted").rglob("*.py")]
        self.assertGreater(len(files), 50)
        found = {
            (name, str(path.relative_to(TOP)))
            for path in files
            for name in found_in(ast.parse(path.read_text(encoding="utf-8")))
        }
        self.assertEqual(found, ALLOWED)
