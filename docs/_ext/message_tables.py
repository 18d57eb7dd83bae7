"""
The tables of all log lines and of all error texts, from the source.

A log line of level warning and above has a comment above its call that begins with ``Cause:`` and goes on with ``Remedy:``. An
error names its remedy in its text, behind a colon or a semicolon; where it cannot, a comment ``Remedy:`` stands above it, or a comment
``Remedy of these errors:`` in its module. :func:`complaints` tells what lacks them.

The text is plain: ``docs/make_reference.py`` writes it into the pages.
"""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path

from attrs import frozen

from macvlan_twisted import option_values

SOURCE = Path(__file__).resolve().parents[2] / "macvlan_twisted"
LEVELS = ("critical", "error", "warn", "info", "debug")
_METHODS = {"failure": "critical", **{level: level for level in LEVELS}}
_BUGS = "critical"
"""The level of :meth:`twisted.logger.Logger.failure`: a bug, whose traceback is the cause."""
_DESERVING = ("error", "warn")

_SECTIONS = {
    "RequestRefused": "Refused requests",
    "NotFound": "Refused requests",
    "AcquireFailed": "Refused requests",
    "AddressInUse": "Refused requests",
    "ValueError": "Invalid option values",
    "LinkError": "Links and kernel",
    "CallTimeout": "Links and kernel",
    "Inconclusive": "Links and kernel",
    "StateError": "The state",
    "NewerStateError": "The state",
    "StartupError": "Service startup",
    "UsageError": "Service startup",
    "EngineError": "Docker's API",
    "EngineUnavailable": "Docker's API",
    "BadRequest": "The plugin protocol",
    "error_body": "The plugin protocol",
}
"""By what is called with the text: an error, or a function that makes a reply or a verdict of it."""
_CONTEXTS = {
    "link_errors": ("LinkError", "{}: REASON"),
    "_link_errors": ("LinkError", "{}: REASON"),
    "_sqlite_errors": ("StateError", "{} PATH: REASON"),
}
"""Context managers that raise an error with their argument: which error, and its text."""
_COMMANDS = "The commands"
_RETURNING = {
    "dhcp": "Refused requests",
    "driver": "Refused requests",
    "ipam": "Refused requests",
    "service.py": "Service startup",
    "tap.py": "Service startup",
}
"""Rooms and modules with functions that return texts of errors."""
_NO_ERRORS = {"failpoints.py", "message_templates.py", "owner.py"}
"""Modules whose errors no user sees."""

_VERBS = (
    "act add allow ask bring change check choose correct create end find free give grant install leave let list load make move name pass put "
    "raise reconnect remove rename report reserve restart run see set shorten specify start stop take try use write REMEDY"
)
"""``REMEDY`` is one that the caller of a function passes to it."""
_REMEDY = re.compile(rf"[:;.] (?=(?:\[[^\]]+\])?(?:{'|'.join(_VERBS.split())})\b)")
_PLACEHOLDERS = {
    "FOREIGN_HOST": "MAC MAC, which EVIDENCE",
    "PREFIX": "SUBNET",
    "TEXT": "VALUE",
    "ASKED": "ADDRESS",
    "DESCRIBED": "POOL",
    "STRERROR": "REASON",
    "FITTING": "SUBNET",
    "PART": "IP_RANGE",
    "SUB_POOL": "IP_RANGE",
    "LAN_PARENT": "PARENT",
    "SERVER_ID": "SERVER",
    "ABBREVIATED": "VALUE",
    "TEXTS": "VALUES",
    "CONFLICTS_IN_A_ROW": "NUMBER",
    "LONGEST_OPTION": "NUMBER",
    "ONE_MAC_DRIVERS": "HYPERVISOR",
    "BODY_LIMIT": "NUMBER",
    "HOW": "EVIDENCE",
    "KIND_OF_ADDRESS": "[host ]address",
    "METAVAR": "VALUE",
    "GOT": "OTHER_VALUE",
    "BARRED": "RANGE",
    "ASIDE": "COUNT",
    "AWAY": "LINKS",
    "RUNNING": "CONTAINERS",
    "MISSING": "REQUIREMENT",
    "NEIGHBOUR": "MAC",
    "STATUS": "CODE",
    "WHERE": "LISTEN",
    **dict.fromkeys(
        ("ANOTHER", "ERROR", "FAILURE", "LACKING", "OUTCOME", "TROUBLE", "VERDICT", "WHY"), "REASON"
    ),
}


_SUBJECTS = {"subject": "container CONTAINER", "because": ", because LINK is absent"}


@frozen
class LogCall:
    """One call of a logger."""

    place: str
    namespace: str
    level: str
    template: str
    fields: tuple[str, ...]
    """In the template."""
    given: tuple[str, ...]
    """What the call gives; the names of the template where it gives a mapping."""
    cause: str
    remedy: str

    @property
    def line(self) -> str:
        """The template as people read it: fields in capitals, in brackets where nothing separates them from what is before."""
        parts = []
        text = ""
        for literal, name, _, _ in string.Formatter().parse(self.template):
            text += literal
            if name is not None:
                optional = text[-1:].isalnum() or text.endswith("]")
                shown = _SUBJECTS.get(name, name.upper())
                text += f"[{shown}]" if optional else shown
        parts.append(text)
        return "".join(parts)


@frozen
class ErrorText:
    """One text of an exception."""

    place: str
    section: str
    text: str
    remedy: str


def _modules() -> Iterator[tuple[str, str, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        place = str(path.relative_to(SOURCE))
        if not place.startswith("testing/"):
            source = path.read_text(encoding="utf-8")
            yield place, source, ast.parse(source)


def _statements(tree: ast.Module) -> Iterator[tuple[ast.stmt, ast.Call]]:
    """Every call, with the statement that it is in."""

    def walk(node: ast.AST, statement: ast.stmt | None) -> Iterator[tuple[ast.stmt, ast.Call]]:
        for child in ast.iter_child_nodes(node):
            inside = child if isinstance(child, ast.stmt) else statement
            if isinstance(child, ast.Call) and inside is not None:
                yield inside, child
            yield from walk(child, inside)

    yield from walk(tree, None)


def _comment_above(lines: Sequence[str], statement: ast.stmt) -> str:
    found: list[str] = []
    at = statement.lineno - 2
    while at >= 0 and lines[at].strip().startswith("#"):
        found.insert(0, lines[at].strip().removeprefix("#").strip())
        at -= 1
    return " ".join(found)


def _cause_and_remedy(comment: str) -> tuple[str, str]:
    _, begins, rest = comment.partition("Cause: ")
    if begins:
        cause, _, remedy = rest.partition(" Remedy: ")
        return cause.strip(), remedy.strip()
    _, begins, remedy = comment.partition("Remedy: ")
    return "", remedy.strip() if begins else ""


def log_calls() -> Iterator[LogCall]:
    """All calls of the product's loggers."""
    for place, source, tree in _modules():
        lines = source.splitlines()
        found = re.search(r'Logger\(namespace="([\w.]+)"\)', source)
        for statement, call in _statements(tree):
            function = call.func
            if not (isinstance(function, ast.Attribute) and ast.unparse(function.value) == "_log"):
                continue
            arguments = list(call.args)
            level = _METHODS.get(function.attr, "")
            if function.attr == "emit":
                assert isinstance(arguments[0], ast.Attribute)
                level = arguments.pop(0).attr  # type: ignore[attr-defined]
            template = ast.literal_eval(arguments[0])
            fields = tuple(
                dict.fromkeys(name for _, name, _, _ in string.Formatter().parse(template) if name)
            )
            given = tuple(each.arg for each in call.keywords if each.arg)
            given = given if len(given) == len(call.keywords) else fields
            cause, remedy = _cause_and_remedy(_comment_above(lines, statement))
            assert found is not None, place
            yield LogCall(f"{place}:{call.lineno}", found[1], level, template, fields, given, cause, remedy)


_WRAPPERS = {"__name__", "getErrorMessage", "rstrip", "decode", "replace", "value", "values"}
"""Methods and attributes that are named by what they are of."""
_CONVERSIONS = {"sorted", "map", "str", "int", "len", "repr"}
_LINKS = "[did you mean NAME? ]use one of LINKS, or a VLAN on one of them"
_SUGGESTIONS = {
    "_below": "[, because LINK is absent]",
    "did_you_mean": "[did you mean NAME? ]",
    "suggest_parent": _LINKS,
}
"""What functions add to a text."""


def _placeholder(node: ast.expr) -> str:
    """The name of an expression in a text, in capitals; the values of an enumeration."""
    name = ""
    while not name:
        match node:
            case ast.IfExp():
                body, orelse = _text(node.body), _text(node.orelse)
                return body if body and orelse else f"[{body or orelse}]" if (body or orelse).strip() else ""
            case ast.Call(func=ast.Name(id=suggestion)) if suggestion in _SUGGESTIONS:
                return _SUGGESTIONS[suggestion]
            case ast.Call(func=ast.Name(id=conversion), args=[*_, last]) if conversion in _CONVERSIONS:
                node = last
            case ast.Call(func=ast.Attribute(attr="join"), args=[joined]):
                node = joined
            case ast.Call(func=ast.Attribute(value=value, attr=wrapper)) if wrapper in _WRAPPERS:
                node = value
            case ast.Attribute(value=value, attr=wrapper) if wrapper in _WRAPPERS:
                node = value
            case ast.Call(func=function):
                node = function
            case ast.GeneratorExp(generators=[first, *_]) | ast.ListComp(generators=[first, *_]):
                node = first.iter
            case ast.Subscript(value=value) | ast.BoolOp(values=[value, *_]):
                node = value
            case ast.Name(id=found) | ast.Attribute(attr=found):
                name = found
            case _:
                return "..."
    enumeration = getattr(option_values, name, None)
    if isinstance(enumeration, type) and issubclass(enumeration, StrEnum):
        return ", ".join(enumeration)
    capitals = name.strip("_").upper()
    return _PLACEHOLDERS.get(capitals, capitals)


def _text(node: ast.expr) -> str:
    """A string expression as people read it; empty if it is none."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return _joined(values)
        case ast.FormattedValue(value=value):
            return _placeholder(value)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _text(left) + _text(right)
        case ast.IfExp(body=body, orelse=orelse):
            return _text(body) or _text(orelse)
        case ast.BoolOp(op=ast.Or(), values=[*_, last]):
            return _text(last)
        case ast.Call(func=ast.Attribute(value=value, attr="rstrip" | "replace")):
            return _text(value)
    return ""


def _joined(values: Sequence[ast.expr]) -> str:
    """
    In brackets what nothing separates from the words around it: it may be empty. A name that stands for two values is
    ``OTHER_NAME`` the second time.
    """
    text = ""
    meanings: dict[str, str] = {}
    for at, value in enumerate(values):
        part = _text(value)
        if isinstance(value, ast.FormattedValue) and part.isupper() and not part.startswith("["):
            expression = re.sub(r"\.replace\([^)]*\)", "", ast.unparse(value.value))
            if meanings.setdefault(part, expression) != expression:
                part = f"OTHER_{part}"
            after = values[at + 1] if at + 1 < len(values) else None
            runs_on = isinstance(after, ast.Constant) and str(after.value)[:1].isalpha()
            if (text[-1:].isalnum() and not text.endswith("IPv")) or text.endswith(("]", ")")) or runs_on:
                part = f"[{part}]"
        text += part
    return text


class _Inlining(ast.NodeTransformer):
    """Replaces, in texts, variables of a function that are assigned a text once, by that text."""

    def __init__(self) -> None:
        self._texts: dict[str, ast.expr] = {}

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        outer = self._texts
        assigned = [
            (target.id, each.value)
            for each in ast.walk(node)
            if isinstance(each, ast.Assign)
            for target in each.targets
            if isinstance(target, ast.Name)
        ]
        names = [name for name, _ in assigned]
        self._texts = {
            name: value for name, value in assigned if names.count(name) == 1 and self._is_text(value)
        }
        self.generic_visit(node)
        self._texts = outer
        return node

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]

    @staticmethod
    def _is_text(value: ast.expr) -> bool:
        return isinstance(value, ast.JoinedStr | ast.IfExp | ast.BoolOp) and bool(_text(value).strip())

    def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.AST:
        inlined = self._inlined(node.value)
        if isinstance(inlined, ast.JoinedStr):
            return inlined
        return ast.copy_location(ast.FormattedValue(inlined, node.conversion, node.format_spec), node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        node.args = [self._inlined(each) for each in node.args]
        return node

    def _inlined(self, node: ast.expr) -> ast.expr:
        return self._texts.get(node.id, node) if isinstance(node, ast.Name) else node


def error_texts() -> Iterator[ErrorText]:
    """All texts of errors that a user may see."""
    for place, source, tree in _modules():
        if place.rpartition("/")[2] in _NO_ERRORS:
            continue
        inlined = _Inlining().visit(tree)
        lines = source.splitlines()
        of_all = re.search(r"^# Remedy of these errors: ((?:.*\n)(?:# .*\n)*)", source, re.M)
        default = re.sub(r"\s*\n(?:# )?", " ", of_all[1]).strip() if of_all else ""
        for statement, call in _statements(inlined):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            name, form = _CONTEXTS.get(name, (name, "{}"))
            text = _text(call.args[0]) if name in _SECTIONS and call.args else ""
            if not text or not re.search(r"[a-z]{3}", text):
                continue
            text = form.format(text)
            what, remedy = text, ""
            parts = _REMEDY.split(text, maxsplit=1)
            if len(parts) == 2:
                what, remedy = parts
            _, commented = _cause_and_remedy(_comment_above(lines, statement))
            section = _COMMANDS if place.startswith("commands/") else _SECTIONS[name]
            yield ErrorText(f"{place}:{call.lineno}", section, what, commented or remedy or default)


def _returned_texts() -> Iterator[ErrorText]:
    """Texts that a function returns to those who raise the error; they name their remedy, or a comment does."""
    for place, source, tree in _modules():
        section = _RETURNING.get(place.split("/")[0])
        if section is None:
            continue
        lines = source.splitlines()
        for node in ast.walk(_Inlining().visit(tree)):
            if isinstance(node, ast.Return) and node.value is not None and _text(node.value):
                text, *rest = _REMEDY.split(_text(node.value), maxsplit=1)
                _, remedy = _cause_and_remedy(_comment_above(lines, node))
                remedy = remedy or "".join(rest)
                if remedy:
                    yield ErrorText(f"{place}:{node.lineno}", section, text, remedy)


def _startup_lines() -> Iterator[LogCall]:
    """What the start logs of its choices: the texts are collected before logging begins."""
    levels = {"reasons": "info", "hints": "warn"}
    for place, source, tree in _modules():
        lines = source.splitlines()
        for statement, call in _statements(tree):
            name = ast.unparse(call.func).removesuffix(".append")
            text = _text(call.args[0]) if name in levels and call.args else ""
            if text:
                cause, remedy = _cause_and_remedy(_comment_above(lines, statement))
                yield _startup_line(f"{place}:{call.lineno}", levels[name], text, cause, remedy)
        for node in ast.walk(tree):
            match node:
                case ast.AugAssign(target=ast.Name(id=name), value=ast.ListComp(elt=text)) if name in levels:
                    cause, remedy = _cause_and_remedy(_comment_above(lines, node))
                    yield _startup_line(f"{place}:{node.lineno}", levels[name], _text(text), cause, remedy)


def _startup_line(place: str, level: str, text: str, cause: str, remedy: str) -> LogCall:
    return LogCall(place, "macvlan_twisted", level, text, (), (), cause, remedy)


def complaints() -> list[str]:
    """What lacks a cause or a remedy."""
    found = []
    for call in (*log_calls(), *_startup_lines()):
        if call.level in _DESERVING and not (call.cause and call.remedy):
            found.append(
                f"{call.place}: {call.level} {call.template!r} has no comment with Cause: and Remedy:"
            )
    found += [f"{each.place}: {each.text!r} names no remedy" for each in error_texts() if not each.remedy]
    return found


def _table(titles: Sequence[str], widths: str, rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield from ("", ".. list-table::", "   :header-rows: 1", f"   :widths: {widths}", "")
    for row in (titles, *rows):
        for at, cell in enumerate(row):
            yield f"   {'*' if at == 0 else ' '} - {cell}".rstrip()


def _sentence(text: str) -> str:
    text = text.strip()
    return text if not text or text.endswith((".", "?", "!")) else f"{text}."


_LITERALS = (
    r"groupadd --system [A-Z]+|--OPTION VALUE",
    r"(?:docker network create|macvlan-twisted (?:purge|sandboxes|fleet forget [A-Z]+)|twistd macvlan --help|modprobe (?:8021q|dummy)|chmod 700(?: [A-Z]+)?|ulimit -u)",
    r"ip (?:link set|route show)(?: (?:[A-Z_]+|name|up)(?![a-z]))+",
    r"-o \S+?|--ipam-opt \S+?|--ipam-driver (?:null|macvlan-twisted)|--(?:gateway|aux-address) \S*[A-Z]\S*?|--[A-Za-z]\S*?",
    r"[a-z][a-z0-9_\\]*=(?:on|off|strict|[A-Z]\S*?)|TasksMax=|SocketGroup=",
    r"unix:/\S+?|/etc/group|engine-api\.conf|ipam\.options",
)
"""Commands, options and names of files in the text of a remedy."""


def _prose(text: str) -> str:
    """A cause or a remedy as a sentence of reStructuredText, with commands and options as literals."""
    text = re.sub(r"^\[[^\]]+\]", "", text)
    parts = re.split(r"(``.+?``)", _sentence(text[:1].upper() + text[1:]))
    return "".join(part if part.startswith("``") else _with_literals(part) for part in parts)


def _with_literals(text: str) -> str:
    escaped = re.sub(r"([*`|_\\])", r"\\\1", text)
    return re.sub(
        rf"(?<![\w`])({'|'.join(_LITERALS)})(?=[,;.)]*(?:\s|$))",
        lambda found: f"``{found[1].replace(chr(92), '')}``",
        escaped,
    )


def log() -> Iterator[str]:
    """The log lines, by level."""
    found = [each for each in log_calls() if each.template not in ("{reason}", "{hint}")]
    calls = {
        (LEVELS.index(each.level), each.line.lower(), each.line): each for each in (*found, *_startup_lines())
    }
    ordered = [each for _, each in sorted(calls.items())]

    def of(*levels: str) -> list[LogCall]:
        return [each for each in ordered if each.level in levels]

    for title, level in (("Errors", "error"), ("Warnings", "warn")):
        yield from ("", title, "-" * len(title))
        rows = [(f"``{each.line}``", _prose(each.cause), _prose(each.remedy)) for each in of(level)]
        yield from _table(("Line", "Cause", "Remedy"), "40 30 30", rows)
    for title, level, about in (
        ("Information", "info", "Shown by default."),
        ("Debug", "debug", "Shown with ``--debug``."),
        ("Bugs", _BUGS, "These lines are critical, and a traceback follows. Please report them."),
    ):
        yield from ("", title, "-" * len(title), "", about, "")
        yield from (f"* ``{each.line}``" for each in of(level))


def errors() -> Iterator[str]:
    """The error texts, by what refuses."""
    texts = {(each.section, each.text): each for each in (*error_texts(), *_returned_texts())}
    for section in dict.fromkeys([*_SECTIONS.values(), _COMMANDS]):
        rows = [
            (f"``{each.text}``", _prose(each.remedy))
            for key, each in sorted(texts.items(), key=lambda item: item[0][1].lower())
            if key[0] == section
        ]
        yield from ("", section, "-" * len(section))
        yield from _table(("Error", "Remedy"), "55 45", rows)


TABLES: dict[str, Callable[[], Iterator[str]]] = {"log": log, "errors": errors}


def message_text(kind: str) -> str:
    """The reStructuredText of one table."""
    return re.sub(r"\n{3,}", "\n\n", "\n".join(TABLES[kind]()).strip("\n"))
