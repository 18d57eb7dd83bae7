"""
``.. failpoint-reference::``: the program's failpoints.

The text is made without Sphinx, so that a unit test can read it.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from itertools import groupby
from pkgutil import walk_packages
from typing import TYPE_CHECKING, Any

import macvlan_twisted
from macvlan_twisted.failpoints import all_failpoints

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def _rows() -> Iterator[str]:
    for module in walk_packages(macvlan_twisted.__path__, "macvlan_twisted."):
        import_module(module.name)
    for room, failpoints in groupby(sorted(all_failpoints().items()), lambda item: item[0].split(".")[0]):
        yield from ("", f".. list-table:: {room}", "   :widths: 34 66", "")
        for name, failpoint in failpoints:
            yield from (f"   * - ``{name}``", f"     - {failpoint.what}")


def reference_text() -> str:
    """The reStructuredText of all failpoints, room by room."""
    return "\n".join(_rows())


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    from docutils import nodes
    from docutils.statemachine import StringList
    from sphinx.util.docutils import SphinxDirective

    class FailpointReference(SphinxDirective):
        """``.. failpoint-reference::``"""

        def run(self) -> list[nodes.Node]:
            place = nodes.section()
            place.document = self.state.document
            lines = StringList(reference_text().splitlines(), source="<failpoints>")
            self.state.nested_parse(lines, self.content_offset, place)
            return place.children

    app.add_directive("failpoint-reference", FailpointReference)
    return {"version": "1", "parallel_read_safe": True}
