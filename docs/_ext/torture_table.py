"""
``.. torture-table::``: results of the last full run of ``bin/torture``, from ``docs/torture.json``.

The text is made without Sphinx, so that a unit test can read it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

RUN = Path(__file__).resolve().parents[1] / "torture.json"
_COUNTS = ("tried", "survived", "lost", "leaked", "seconds")


def _plain(text: str) -> str:
    """*text* with the markup of reStructuredText escaped."""
    return "".join(f"\\{each}" if each in "\\*`|_" else each for each in text)


def _about(run: Mapping[str, Any]) -> Iterator[str]:
    form = "the short form" if run["short"] else "all of it"
    yield (
        f"Run on {run['date']} under Linux {_plain(run['kernel'])} on {run['cores']} cores with Python {run['python']}: "
        f"{form}, seed {run['seed']}."
    )


def _table(run: Mapping[str, Any]) -> Iterator[str]:
    yield from ("", ".. list-table::", "   :header-rows: 1", "   :widths: 20 14 14 12 12 14", "")
    for row in [{"part": "part", **{name: name for name in _COUNTS}}, *run["parts"]]:
        cells = [row["part"], *(row.get(name, "skipped" if name == "tried" else "") for name in _COUNTS)]
        for number, cell in enumerate(cells):
            yield f"   {'* -' if number == 0 else '  -'} {cell}"


def _figures(run: Mapping[str, Any]) -> Iterator[str]:
    for row in run["parts"]:
        yield from ("", f"**{row['part']}**: {_plain(row['what'])}", "")
        for name, value in row.get("figures", {}).items():
            yield f"* {_plain(name)}: {_plain(str(value))}"
        for finding in row.get("findings", []):
            yield f"* {_plain(str(finding).splitlines()[0][:200])}"


def reference_text(path: Path = RUN) -> str:
    """The reStructuredText of the last full run."""
    if not path.exists():
        return "There has been no full run of this version yet."
    run = json.loads(path.read_text(encoding="utf-8"))
    return "\n".join([*_about(run), *_table(run), *_figures(run)])


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    from docutils import nodes
    from docutils.statemachine import StringList
    from sphinx.util.docutils import SphinxDirective

    class TortureTable(SphinxDirective):
        """``.. torture-table::``"""

        def run(self) -> list[nodes.Node]:
            self.env.note_dependency(str(RUN))
            place = nodes.section()
            place.document = self.state.document
            lines = StringList(reference_text().splitlines(), source="<torture.json>")
            self.state.nested_parse(lines, self.content_offset, place)
            return place.children

    app.add_directive("torture-table", TortureTable)
    return {"version": "1", "parallel_read_safe": True}
