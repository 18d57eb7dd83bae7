"""The directive ``unreleased-news``: the news fragments, as ``towncrier build`` will put them into NEWS.rst."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from docutils.nodes import Node
from sphinx.util.docutils import SphinxDirective

from macvlan_twisted import VERSION_TEXT

TOP = Path(__file__).resolve().parents[2]


class UnreleasedNews(SphinxDirective):
    """Render the fragments in ``newsfragments/`` as a section of their own."""

    def run(self) -> list[Node]:
        command = [
            sys.executable,
            "-m",
            "towncrier",
            "build",
            "--draft",
            "--version",
            VERSION_TEXT,
            "--date",
            "not released yet",
        ]
        draft = subprocess.run(command, cwd=TOP, check=True, capture_output=True, text=True).stdout
        for fragment in (TOP / "newsfragments").glob("+*"):
            self.env.note_dependency(str(fragment))
        return self.parse_text_to_nodes(draft, allow_section_headings=True)


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("unreleased-news", UnreleasedNews)
    return {"parallel_read_safe": True}
