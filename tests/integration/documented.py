"""The examples of a page of the manual: its commands with what they print, its files, and the log lines that it shows.

How to write examples, which run on a LAN with the addresses that the pages name (``eth1``, a free ``eth2``, 192.168.1.0/24,
fd00:1::/64):

* ``.. code-block:: console`` has commands after ``$`` and what they print below; ``laptop:~$`` and ``router:~$`` are the
  other machines. What a command prints is compared if the page shows anything: ``...`` stands for anything, and ids,
  times, foreign MACs and folded lines may differ. A command may fail if the output says *error*. ``^C`` ends the plugin.
* A block with ``:caption: PATH`` in one of `FILES` is a file that is written; ``.. literalinclude::`` too.
* ``.. code-block:: text`` is not run. With ``:class: log`` each of its lines must be in the plugin's log.
* The plugin runs from the beginning, unless the page starts it. ``sudo systemctl restart macvlan-twisted`` reads
  ``/etc/default/macvlan-twisted``; images are ``busybox`` and ``nginx``.
* The comment ``.. not run: REASON`` leaves the next block out (``REASONS`` in ``tests/unit/test_documented.py``); the
  comment ``.. set up:`` has commands in the lines below it that readers do not see.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab.lan import Addresses

CHECKOUT = Path(__file__).resolve().parents[2]
LAN = Addresses(
    gateway=("192.168.1.1/24", "fd00:1::1/64"),
    neighbour=("192.168.1.20/24", "fd00:1::20/64"),
    host=("192.168.1.10/24", "fd00:1::10/64"),
)
"""The LAN of the pages."""
ELSEWHERE = ("compose",)
"""Pages whose examples another test runs: test_compose.py."""
PAGES = [
    page
    for page in (
        CHECKOUT / "README.rst",
        CHECKOUT / "docs/tutorial.rst",
        *sorted((CHECKOUT / "docs/howto").glob("*.rst")),
    )
    if page.stem not in ELSEWHERE
]
PROMPT = re.compile(r"^(?:(?P<machine>\w+):~)?\$ (?P<text>.*)$")
INTERRUPT = "^C"
FILES = ("yaml", "ini", "python", "toml", "json")
"""Languages of blocks that are files, if they have a caption: the caption is the path."""
_DIRECTIVE = re.compile(r"^(?P<margin> *)\.\. (?P<name>[\w-]+):: ?(?P<argument>.*)$")
_COMMENT = re.compile(r"^(?P<margin> *)\.\. (?P<what>not run|set up): ?(?P<text>.*)$")
_OPTION = re.compile(r"^ +:(?P<name>[\w-]+): ?(?P<value>.*)$")


@dataclass(frozen=True)
class Command:
    """A command, typed on the docker host or on another machine of the LAN, and what it prints."""

    line: int
    text: str
    output: str
    """What the page shows; nothing if it shows nothing, and then anything may be printed."""
    machine: str = ""
    seen: bool = True
    """Whether a reader sees it: not what a test sets up."""


@dataclass(frozen=True)
class File:
    """A file that the reader is to write."""

    line: int
    path: str
    text: str


@dataclass(frozen=True)
class LogLines:
    """Lines that the service logs."""

    line: int
    text: str


@dataclass(frozen=True)
class NotRun:
    """An example that no test runs, and why."""

    line: int
    reason: str
    text: str


Step = Command | File | LogLines | NotRun


class BadExample(Exception):
    """A page has a block that no test would run, and does not say why."""


@dataclass(frozen=True)
class _Block:
    line: int
    kind: str
    argument: str
    options: dict[str, str]
    body: str


def steps(page: Path) -> list[Step]:
    """Return the examples of a page, in its order."""
    found: list[Step] = []
    reason = ""
    for block in _blocks(page.read_text(encoding="utf-8")):
        where = f"{page.name}:{block.line}"
        if block.kind == "not run":
            reason = " ".join(f"{block.argument} {block.body}".split())
            if not reason:
                raise BadExample(f"{where}: 'not run' needs a reason")
            continue
        if block.kind == "literal":
            raise BadExample(f"{where}: give the block a language: '.. code-block:: console', 'yaml', 'text'")
        if reason:
            found.append(NotRun(block.line, reason, block.body))
        elif block.kind == "set up" or block.argument == "console":
            found += _commands(block, where)
        elif block.kind == "literalinclude":
            text = (page.parent / block.argument).read_text(encoding="utf-8")
            found.append(File(block.line, Path(block.argument).name, text))
        elif block.argument in FILES and "caption" in block.options:
            found.append(File(block.line, block.options["caption"], block.body))
        elif block.argument == "text":
            if "log" in block.options.get("class", "").split():
                found.append(LogLines(block.line, block.body))
        else:
            raise BadExample(f"{where}: '{block.argument}' is run only as a file: give it a :caption:")
        reason = ""
    return found


def matches(shown: str, printed: str) -> bool:
    """Say whether a page shows what was printed. ``...`` stands for anything, and lines may be folded."""
    return bool(re.fullmatch(_pattern(shown), _comparable(printed)))


def begins_with(shown: str, printed: str) -> bool:
    """Say whether what was printed so far begins with what a page shows."""
    return bool(re.match(_pattern(shown), _comparable(printed)))


def contains(shown: str, printed: str) -> bool:
    """Say whether what a page shows is somewhere in what was printed."""
    return bool(re.search(_pattern(shown), _comparable(printed)))


_VARYING = (
    (r"\b[0-9a-f]{64}\b|\b[0-9a-f]{12}\b", "ID"),
    (r"\bmv([a-z])[0-9a-f]{12}\b", r"mv\1ID"),
    (r"\b(?!7a:42|02:00|ff:ff)(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b", "MAC"),
    (r"\b[\d./]+ ?ms\b", "N ms"),
    (r"\b\d+: (\w+)@(\w*?)\d+:", r"N: \1@\2N:"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[+\w.]*", "TIME"),
)


def _comparable(text: str) -> str:
    """Make texts equal that differ only in what changes from run to run, and in white space."""
    for pattern, replacement in _VARYING:
        text = re.sub(pattern, replacement, text)
    return " ".join(text.split())


def _pattern(shown: str) -> str:
    parts = re.split(r" ?\.\.\. ?", _comparable(shown))
    return " ?.* ?".join(re.escape(part) for part in parts)


def _commands(block: _Block, where: str) -> Iterator[Command]:
    lines, seen = block.body.splitlines(), block.kind != "set up"
    while lines:
        line = lines.pop(0)
        if line == INTERRUPT:
            yield Command(block.line, INTERRUPT, "", seen=seen)
            continue
        prompt = PROMPT.match(line)
        if prompt is None:
            raise BadExample(f"{where}: the block begins with output, not with '$ ' and a command")
        text = prompt["text"]
        while text.endswith("\\") and lines:
            text += "\n" + lines.pop(0).removeprefix("> ")
        output = []
        while lines and not PROMPT.match(lines[0]) and lines[0] != INTERRUPT:
            output.append(lines.pop(0))
        yield Command(block.line, text, "\n".join(output).strip("\n"), prompt["machine"] or "", seen)


def _blocks(page: str) -> Iterator[_Block]:
    lines = page.splitlines()
    number = 0
    while number < len(lines):
        line, at = lines[number], number + 1
        number += 1
        directive, comment = _DIRECTIVE.match(line), _COMMENT.match(line)
        if comment is not None:
            body, number = _body(lines, number, len(comment["margin"]))
            yield _Block(at, comment["what"], comment["text"], {}, body)
        elif directive is not None:
            margin = len(directive["margin"])
            if directive["name"] not in ("code-block", "literalinclude"):
                continue  # what is in it is looked through as the rest of the page is
            options = {}
            while number < len(lines) and (option := _OPTION.match(lines[number])):
                options[option["name"]] = option["value"]
                number += 1
            body, number = _body(lines, number, margin)
            yield _Block(at, directive["name"], directive["argument"].strip(), options, body)
        elif line.endswith("::") and not line.lstrip().startswith(".. "):
            body, number = _body(lines, number, len(line) - len(line.lstrip()))
            yield _Block(at, "literal", "", {}, body)


def _body(lines: list[str], number: int, margin: int) -> tuple[str, int]:
    """Return the text of the lines from `number` on that are deeper than `margin`, and the number after them."""
    end = number
    while end < len(lines) and (
        not lines[end].strip() or len(lines[end]) - len(lines[end].lstrip()) > margin
    ):
        end += 1
    kept = lines[number:end]
    inner = min((len(each) - len(each.lstrip()) for each in kept if each.strip()), default=0)
    text = "\n".join(each[inner:].rstrip() for each in kept).strip("\n")
    return (f"{text}\n" if text else ""), end
