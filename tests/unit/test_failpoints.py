"""Operations with a lasting effect are within failpoints, where tests inject crashes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from runpy import run_path

from twisted.trial.unittest import SynchronousTestCase

import macvlan_twisted
from macvlan_twisted.failpoints import Failpoint, all_failpoints, observe

PACKAGE = Path(macvlan_twisted.__file__).parent
REFERENCE = PACKAGE.parent / "docs" / "_ext" / "failpoint_table.py"

EXCEPTIONS = {
    # (file, function, call): why it needs no failpoint.
    ("daemon_start.py", "report", "write"): "into a pipe, to the process at the terminal",
    ("lan/packet_socket.py", "send", "sendto"): "the caller has the failpoint",
    ("lan/packet_sockets.py", "send", "send"): "the caller has the failpoint",
    ("lan/packet_socket.py", "_bound_socket", "bind"): "of a packet socket, which ends with the process",
    ("logs.py", "_open_to_append", "open"): "a log is no state: whoever rotates it has moved the file",
    ("netlink/events.py", "open", "bind"): "of a netlink socket, which ends with the process",
    ("netlink/raw_socket.py", "open", "bind"): "of a netlink socket, which ends with the process",
    ("netlink/raw_socket.py", "_send", "send"): "the caller has the failpoint",
    ("listener/endpoints.py", "parse_unix", "listen"): "on a recorder",
    ("fleet/etcd_members.py", "startProducing", "write"): "a request to etcd: who makes it has the failpoint",
    ("protocol/routes.py", "method", "write"): "makes a body of a reply",
    ("systemd_notify.py", "notify", "sendto"): "a report, which changes nothing",
    ("state/database.py", "commit", "write"): "the generation has the failpoint",
}

_NETLINK_READS = {"get", "dump"}
_OS = {
    "pwrite",
    "write",
    "unlink",
    "remove",
    "rename",
    "replace",
    "mkdir",
    "makedirs",
    "rmdir",
    "chmod",
    "chown",
}
_OS |= {"link", "symlink", "mkfifo", "mknod", "truncate", "ftruncate", "setxattr", "mount", "umount"}
_PATH = {"unlink", "mkdir", "rmdir", "chmod", "rename", "write_text", "write_bytes", "touch", "symlink_to"}
_PATH |= {"hardlink_to"}
_SOCKET = {"sendto", "send", "sendall", "sendmsg", "bind", "setns"}
_SQL = re.compile(r"\b(COMMIT|journal_mode|VACUUM|wal_checkpoint)\b")
_NET_ADMIN = {"flush_addr", "flush_routes", "flush_rules", "rule", "neigh", "tc", "netns"}


def lasting_call(node: ast.AST) -> str:
    """The name of the function that *node* calls, if that has a lasting effect; else an empty string."""
    if isinstance(node, ast.Attribute) and node.attr == "stopListening":
        return node.attr  # also as an argument
    if not isinstance(node, ast.Call):
        return ""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    of = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
    arguments = " ".join(ast.unparse(each) for each in (*node.args, *(each.value for each in node.keywords)))
    first = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
    netlink = of.endswith("netlink") and (
        name in _NET_ADMIN or (name in {"link", "addr", "route"} and first not in _NETLINK_READS)
    )
    changes = {
        "netlink": netlink,
        "templates": of.endswith("_templated") and name != "close",
        "os": of in {"os", "shutil"} and (name in _OS or (name == "open" and "O_CREAT" in arguments)),
        "path": name in _PATH,
        "open": name == "open" and of != "os" and bool(re.search(r"'[rbt]*[wax+][rbt+]*'", arguments)),
        "socket": name in _SOCKET or (name == "listen" and "endpoint" in of),
        "write": name in {"write", "writeSomeData"},
        "database": of == "sqlite3" and name == "connect",
        "sql": name in {"executescript"} or (name in {"run", "execute"} and bool(_SQL.search(arguments))),
        "api": any(f"b'{method}'" in arguments for method in ("POST", "PUT", "DELETE", "PATCH")),
    }
    return name if any(changes.values()) else ""


def failpoints_in(tree: ast.Module) -> set[str]:
    """The names in a module that hold failpoints: constants, imports and parameters."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and "Failpoint(" in ast.unparse(node.value):
            found |= {each.id for each in node.targets if isinstance(each, ast.Name)}
        elif isinstance(node, ast.arg) and node.annotation is not None:
            if ast.unparse(node.annotation) == "Failpoint":
                found.add(node.arg)
        elif isinstance(node, ast.ImportFrom) and node.level:
            found |= {each.asname or each.name for each in node.names if each.name.isupper()}
    return found


def outside(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Line, function and call of each lasting operation outside of a failpoint."""
    failpoints = failpoints_in(tree)

    def look(node: ast.AST, function: str, within: bool) -> Iterator[tuple[int, str, str]]:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            function, within = getattr(node, "name", function), False
        if isinstance(node, (ast.With, ast.AsyncWith)):
            for item in node.items:
                yield from look(item.context_expr, function, within)
                taken = item.context_expr
                if isinstance(taken, ast.Subscript):  # one of a table of failpoints
                    taken = taken.value
                within = within or (isinstance(taken, ast.Name) and taken.id in failpoints)
            for each in node.body:
                yield from look(each, function, within)
            return
        called = lasting_call(node)
        if called and not within:
            yield getattr(node, "lineno", 0), function, called
        for child in ast.iter_child_nodes(node):
            yield from look(child, function, within)

    yield from look(tree, "", within=False)


def import_everything() -> None:
    for module in walk_packages(macvlan_twisted.__path__, "macvlan_twisted."):
        import_module(module.name)


class CodeTests(SynchronousTestCase):
    def test_lasting_operations_are_within_failpoints(self) -> None:
        found, excepted = [], set()
        for path in sorted(PACKAGE.rglob("*.py")):
            name = str(path.relative_to(PACKAGE))
            if name.startswith("testing/"):  # fakes have no lasting effect
                continue
            for line, function, called in outside(ast.parse(path.read_text(encoding="utf-8"))):
                if (name, function, called) in EXCEPTIONS:
                    excepted.add((name, function, called))
                else:
                    found.append(
                        f"macvlan_twisted/{name}:{line}: {called}() in {function}() is in no failpoint"
                    )
        self.assertEqual(found, [])
        self.assertEqual(set(EXCEPTIONS) - excepted, set(), "exceptions that are not needed")

    def test_checker_finds_lasting_operations(self) -> None:
        for statement in (
            "self._netlink.link('add', ifname='x')",
            "self._templated.retire(index, group)",
            "self._netlink.link(command, index=1)",
            "self._netlink.addr('replace', index=1)",
            "netlink.route('del', dst='x')",
            "run('COMMIT')",
            "database.executescript(f'BEGIN; {script}')",
            "os.pwrite(file, b'', 0)",
            "os.open(path, os.O_WRONLY | os.O_CREAT)",
            "open(path, 'w')",
            "Path(path).unlink(missing_ok=True)",
            "os.rename(a, b)",
            "wire.send(frame)",
            "tap.sendto(frame, where)",
            "channel.transport.write(body)",
            "connection.writeSomeData(body)",
            "maybeDeferred(port.stopListening)",
            "self._ask(b'POST', path)",
        ):
            outside_of_it = f"from .failpoints import STEP\ndef work():\n    {statement}\n"
            self.assertEqual([line for line, _, _ in outside(ast.parse(outside_of_it))], [3], statement)


class RegistryTests(SynchronousTestCase):
    def test_every_failpoint_is_registered_by_name(self) -> None:
        import_everything()
        written: list[str] = []
        for path in PACKAGE.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Failpoint":
                    written.append(ast.literal_eval(node.args[0]))
        self.assertEqual(sorted(written), sorted(all_failpoints()))

    def test_names_are_room_thing_and_deed(self) -> None:
        import_everything()
        for name, failpoint in all_failpoints().items():
            self.assertRegex(name, r"\A[a-z]+\.[a-z_]+\.[a-z_]+\Z")
            room = name.split(".")[0]
            self.assertTrue((PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").is_file(), name)
            self.assertTrue(failpoint.what and not failpoint.what.endswith("."), name)

    def test_names_are_unique(self) -> None:
        name = next(iter(all_failpoints()))
        self.assertRaises(ValueError, Failpoint, name, "again")

    def test_manual_lists_every_failpoint(self) -> None:
        text: str = run_path(str(REFERENCE))["reference_text"]()
        for name, failpoint in all_failpoints().items():
            self.assertIn(f"``{name}``", text)
            self.assertIn(failpoint.what, text)


class ObserverTests(SynchronousTestCase):
    def setUp(self) -> None:
        import_everything()
        self.failpoint = next(iter(all_failpoints().values()))
        self.calls: list[tuple[str, bool]] = []

    def test_observer_is_called_before_and_after_but_not_after_a_failure(self) -> None:
        self.addCleanup(observe(lambda failpoint, is_done: self.calls.append((failpoint.name, is_done))))
        with self.failpoint:
            self.assertEqual(self.calls, [(self.failpoint.name, False)])
        self.assertEqual(self.calls.pop(), (self.failpoint.name, True))
        self.calls.clear()
        with self.assertRaises(OSError), self.failpoint:
            raise OSError
        self.assertEqual(self.calls, [(self.failpoint.name, False)])

    def test_exception_of_the_observer_replaces_the_operation(self) -> None:
        def refuse(failpoint: Failpoint, is_done: bool) -> None:
            raise OSError(28, "full")

        stop = observe(refuse)

        def work() -> None:
            with self.failpoint:
                self.calls.append(("work", True))

        self.assertRaises(OSError, work)
        self.assertEqual(self.calls, [])
        stop()
        work()
        self.assertEqual(self.calls, [("work", True)])
