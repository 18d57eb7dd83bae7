"""``.. command-reference::``: the commands and options of ``macvlan-twisted``, from the program's own parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from macvlan_twisted.commands.cli import make_parser

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def _rows() -> Iterator[str]:
    parser = make_parser()
    commands = next(each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    for name, command in commands.choices.items():
        yield from ("", f".. program:: macvlan-twisted {name}", "", f".. rubric:: {name}", "")
        yield command.description or ""
        for action in command._actions:
            if action.dest == "help":
                continue
            metavar = "" if action.nargs == 0 else f" {action.metavar}"
            text = (action.help or "").replace("%%", "%")
            yield from ("", f".. option:: {action.option_strings[-1]}{metavar}", "")
            yield f"   {text[0].upper()}{text[1:].rstrip('.')}."


def reference_text() -> str:
    """The reStructuredText of all commands."""
    return "\n".join(_rows())


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    from docutils import nodes
    from docutils.statemachine import StringList
    from sphinx.util.docutils import SphinxDirective

    class CommandReference(SphinxDirective):
        """``.. command-reference::``"""

        def run(self) -> list[nodes.Node]:
            place = nodes.section()
            place.document = self.state.document
            lines = StringList(reference_text().splitlines(), source="<commands>")
            self.state.nested_parse(lines, self.content_offset, place)
            return place.children

    app.add_directive("command-reference", CommandReference)
    return {"version": "1", "parallel_read_safe": True}
