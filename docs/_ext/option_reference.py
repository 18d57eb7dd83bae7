"""
``.. option-reference:: service`` (or ``network``, ``pool``, ``settings``): a table of options.

:mod:`option_tables` makes the text.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from option_tables import KINDS, reference_text
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class OptionReference(SphinxDirective):
    """``.. option-reference:: KIND``"""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        kind = self.arguments[0]
        if kind not in KINDS:
            raise self.error(f"no such table of options: {kind}; there are {', '.join(KINDS)}")
        place = nodes.section()
        place.document = self.state.document
        lines = StringList(reference_text(kind).splitlines(), source=f"<options of {kind}>")
        self.state.nested_parse(lines, self.content_offset, place)
        return place.children


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("option-reference", OptionReference)
    return {"version": "1", "parallel_read_safe": True}
