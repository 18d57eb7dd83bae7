"""
``.. benchmark:: machine``, ``.. benchmark:: PART figures`` or ``.. benchmark:: PART TABLE``: results of ``bin/benchmark``,
from ``docs/benchmark.json``.

The text is made without Sphinx, so that a unit test can read it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

MEASURED = Path(__file__).resolve().parents[1] / "benchmark.json"


def measured() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(MEASURED.read_text(encoding="utf-8"))
    return document


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "") -> Iterator[str]:
    yield from (f".. list-table:: {title}".rstrip(), "   :header-rows: 1", "")
    for row in (columns, *rows):
        for number, cell in enumerate(row):
            yield f"   {'  ' if number else '* '}- {_shown(cell)}".rstrip()


def _machine(document: dict[str, Any]) -> Iterator[str]:
    short = "; a short run, whose figures say little" if document["short"] else ""
    yield (
        f"Measured on {document['date']} with macvlan-twisted {document['version']} on Linux {document['kernel']}, Python "
        f"{document['python']}, {document['cores']} cores, Docker Engine {document['engine']}{short}. Before, the "
        f"load average was {document['load']}."
    )


def _figures(part: dict[str, Any]) -> Iterator[str]:
    rows = []
    for each in part["figures"]:
        spread = (
            "" if each["spread"] is None else " to ".join(_shown(float(value)) for value in each["spread"])
        )
        rows.append((each["name"], f"{_shown(float(each['value']))} {each['unit']}", spread))
    yield from _table(("Figure", "Value", "Quartiles"), rows)


def benchmark_text(name: str, what: str = "") -> str:
    """
    reStructuredText; a table that the last published run lacks is a remark.

    :raises KeyError: figures of a part that the run lacks.
    """
    document = measured()
    if name == "machine":
        return "\n".join(_machine(document))
    parts = {part["part"]: part for part in document["parts"]}
    if what == "figures":
        return "\n".join(_figures(parts[name]))
    tables = {each["name"]: each for each in parts[name]["tables"]} if name in parts else {}
    if what not in tables:
        return "*Not measured yet.*"
    table = tables[what]
    return "\n".join(_table(table["columns"], table["rows"], table["title"]))


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    from docutils import nodes
    from docutils.statemachine import StringList
    from sphinx.util.docutils import SphinxDirective

    class Benchmark(SphinxDirective):
        required_arguments = 1
        optional_arguments = 1

        def run(self) -> list[nodes.Node]:
            self.env.note_dependency(str(MEASURED))
            try:
                text = benchmark_text(*self.arguments)
            except KeyError as error:
                raise self.error(f"not in docs/benchmark.json: {error}") from None
            place = nodes.section()
            place.document = self.state.document
            self.state.nested_parse(
                StringList(text.splitlines(), source="<benchmark>"), self.content_offset, place
            )
            return place.children

    app.add_directive("benchmark", Benchmark)
    return {"version": "1", "parallel_read_safe": True}
