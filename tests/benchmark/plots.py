"""Pictures of what was measured, in the manner of the manual's others."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot
from matplotlib.patches import Rectangle

OURS, OTHERS, OUTLINE, GREY = "#7fb77f", "#e0b46a", "#345", "#c8ced6"
_COLOURS = (OURS, OTHERS, "#8fa8c8", "#c99a9a", GREY)

pyplot.rcParams.update(
    {
        "font.family": ["DejaVu Sans", "sans-serif"],
        "font.size": 10,
        "svg.fonttype": "none",
        "svg.hashsalt": "macvlan-twisted",
        "axes.edgecolor": OUTLINE,
        "axes.labelcolor": OUTLINE,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
        "figure.facecolor": "white",
    }
)

Tables = Mapping[str, Mapping[str, Any]]
"""By name, as in the document."""


def draw(document: Mapping[str, Any], directory: Path) -> Iterator[Path]:
    """Draw what the parts that ran have measured."""
    directory.mkdir(parents=True, exist_ok=True)
    pictures = {
        "protocol": _protocol,
        "breakdown": _breakdown,
        "growth": _growth,
        "addresses": _addresses,
        "startup": _startup,
        "engine": _engine,
        "features": _features,
    }
    for part in document["parts"]:
        if part.get("tables") and part["part"] in pictures:
            tables = {table["name"]: table for table in part["tables"]}
            figures = {figure["name"]: figure for figure in part["figures"]}
            pictures[part["part"]](tables, figures)
            path = directory / f"performance-{part['part']}.svg"
            if pyplot.gcf().get_layout_engine() is None:
                pyplot.tight_layout()
            pyplot.savefig(path, metadata={"Date": None, "Creator": None})
            pyplot.close()
            yield path


def _bars(axes: Any, names: list[str], heights: list[float], colours: list[str], unit: str) -> None:
    found = axes.bar(names, heights, color=colours, edgecolor=OUTLINE, linewidth=0.6, width=0.65)
    axes.bar_label(found, fmt="%.3g", padding=2)
    axes.set_ylabel(unit)
    axes.margins(y=0.15)


def _pairs(axes: Any, rows: list[list[Any]], names: list[str], columns: Mapping[int, str]) -> None:
    """Two columns of milliseconds side by side, by the name of each row."""
    places = range(len(rows))
    for offset, (column, what) in enumerate(columns.items()):
        axes.bar(
            [place + 0.38 * offset for place in places],
            [row[column] for row in rows],
            0.36,
            label=what,
            color=_COLOURS[offset],
            edgecolor=OUTLINE,
            linewidth=0.6,
        )
    axes.set_xticks([place + 0.19 for place in places], names, rotation=20, ha="right")
    axes.set_ylabel("ms")


def _protocol(tables: Tables, figures: Mapping[str, Any]) -> None:
    _, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), width_ratios=(2, 3))
    callers = {"1 caller": "1", "8 callers": "8", "32 callers": "32"}
    rates = [figures[f"lives, {each}"]["value"] for each in callers]
    floor = figures["kernel alone, one netlink socket"]["value"]
    _bars(left, ["kernel", *callers.values()], [floor, *rates], [OTHERS, *[OURS] * len(rates)], "per second")
    left.set_title("Links created and deleted by the kernel\nalone; endpoint lives, by callers")
    rows = tables["calls-1"]["rows"]
    _pairs(right, rows, [row[0] for row in rows], {1: "median", 2: "p99"})
    right.set_title("Latency of each call, 1 caller")
    right.legend(frameon=False)


def _breakdown(tables: Tables, figures: Mapping[str, Any]) -> None:
    titles = {
        "connect": "One docker network connect",
        "disconnect": "One docker network disconnect",
        "calls": "The plugin's calls in both",
    }
    shown = [tables[name] for name in titles if name in tables]
    pieces = list(dict.fromkeys(row[0] for table in shown for row in _pieces(table)))
    palette = pyplot.get_cmap("tab20")
    _, places = pyplot.subplots(
        len(shown), 1, figsize=(9, 2.2 * len(shown) + 2.6), squeeze=False, layout="constrained"
    )
    for axes, table in zip(places[:, 0], shown, strict=True):
        scale = 0.001 if table["name"] == "calls" else 1.0
        for column, name in enumerate(table["columns"][1:], start=1):
            begin = 0.0
            for row in _pieces(table):
                length = row[column] * scale
                axes.barh(
                    name, length, left=begin, color=palette(pieces.index(row[0]) % 20), edgecolor="white",
                    linewidth=0.4,
                )  # fmt: skip
                begin += length
        axes.invert_yaxis()
        axes.set_xlabel("ms")
        axes.set_title(titles[table["name"]])
    boxes = [Rectangle((0, 0), 1, 1, color=palette(number % 20)) for number in range(len(pieces))]
    axes.figure.legend(boxes, pieces, frameon=False, fontsize=8, loc="outside lower center", ncols=3)


def _pieces(table: Mapping[str, Any]) -> list[list[Any]]:
    return [row for row in table["rows"] if row[0] not in ("total", "number of calls")]


def _growth(tables: Tables, figures: Mapping[str, Any]) -> None:
    _, axes = pyplot.subplots(figsize=(9, 3.6))
    rows = tables["growth"]["rows"]
    names = [
        f"{row[1]:,} {row[0]}" if row[1] else row[0] if row[0] == "nothing" else f"no {row[0]}"
        for row in rows
    ]
    _pairs(axes, rows, names, {4: "CreateEndpoint", 5: "DeleteEndpoint"})
    axes.set_title("Median latency from one caller, by what exists already")
    axes.legend(frameon=False, loc="upper left", ncols=2)
    axes.margins(y=0.2)


def _lines(axes: Any, lines: Mapping[str, tuple[list[Any], list[float]]], title: str, x: str, y: str) -> None:
    """Lines from zero, by their labels."""
    for colour, (label, (places, heights)) in zip(("#274", "#a60"), lines.items(), strict=False):
        axes.plot(places, heights, marker="o", color=colour, label=label)
    axes.set_ylim(bottom=0)
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _addresses(tables: Tables, figures: Mapping[str, Any]) -> None:
    _, places = pyplot.subplots(1, 2, figsize=(9, 3.4))
    rows = {
        f"{family} pool": [row for row in tables["growth"]["rows"] if row[0] == family]
        for family in ("/8", "/64")
    }
    for axes, column, callers in zip(places, (2, 3), ("1 caller", "16 callers"), strict=True):
        lines = {
            label: ([f"{row[1]:,}" for row in mine], [row[column] for row in mine])
            for label, mine in rows.items()
        }
        title = f"RequestAddress, ReleaseAddress, {callers}"
        _lines(axes, lines, title, "allocated addresses", "calls per second")
        axes.legend(frameon=False)


def _startup(tables: Tables, figures: Mapping[str, Any]) -> None:
    _, (left, middle, right) = pyplot.subplots(1, 3, figsize=(9, 3.2), width_ratios=(1, 1, 2))
    rows = {
        f"links {where}": [row for row in tables["starts"]["rows"] if row[1] == where or not row[0]]
        for where in ("on the host", "in containers")
    }
    for axes, column, unit, title in ((left, 2, "s", "First reply"), (middle, 4, "MB", "Idle memory")):
        lines = {
            label: ([row[0] for row in mine], [row[column] for row in mine]) for label, mine in rows.items()
        }
        _lines(axes, lines, title, "endpoints", unit)
    left.legend(frameon=False, fontsize=8, loc="lower right")
    lives = tables["lives"]["rows"]
    lines = {"": ([row[0] for row in lives], [row[1] for row in lives])}
    _lines(right, lines, "Memory, by the number of lives", "lives", "MB")
    right.set_ylim(top=1.25 * max(row[1] for row in lives))


def _engine(tables: Tables, figures: Mapping[str, Any]) -> None:
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 4.2), width_ratios=(2, 1), layout="constrained")
    rows = tables["acts"]["rows"]
    many = [row for row in rows if row[0][0].isdigit()]
    _grouped(left, [row for row in rows if row not in many])
    left.set_title("One container")
    _grouped(right, many)
    right.set_title("At once")
    figure.legend(*left.get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=2)


def _grouped(axes: Any, rows: list[list[Any]]) -> None:
    acts = list(dict.fromkeys(row[0] for row in rows))
    drivers = list(dict.fromkeys(row[1] for row in rows))
    width = 0.8 / len(drivers)
    for number, driver in enumerate(drivers):
        mine = {row[0]: row for row in rows if row[1] == driver}
        axes.bar(
            [place + number * width for place in range(len(acts))],
            [mine[act][2] for act in acts],
            width * 0.94,
            yerr=[
                [mine[act][2] - mine[act][3] for act in acts],
                [mine[act][4] - mine[act][2] for act in acts],
            ],
            ecolor=OUTLINE,
            error_kw={"linewidth": 0.8},
            label=driver,
            color=(OTHERS, OURS, "#4f8f4f", "#8fa8c8", "#5f7fa8")[number],
            edgecolor=OUTLINE,
            linewidth=0.6,
        )
    axes.set_xticks([place + width * (len(drivers) - 1) / 2 for place in range(len(acts))], acts)
    axes.set_ylim(top=1.3 * max(row[4] for row in rows))
    axes.set_ylabel("ms")


def _features(tables: Tables, figures: Mapping[str, Any]) -> None:
    _, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6))
    rows = tables["calls"]["rows"]
    begins = [0.0] * len(rows)
    for number, what in enumerate(("RequestAddress", "CreateEndpoint", "Join")):
        heights = [row[1 + number] for row in rows]
        left.barh(
            [row[0] for row in rows], heights, left=begins, label=what,
            color=_COLOURS[number], edgecolor=OUTLINE, linewidth=0.6,
        )  # fmt: skip
        begins = [begin + height for begin, height in zip(begins, heights, strict=True)]
    left.set_title("Calls of a start")
    left.set_xlabel("ms")
    left.legend(frameon=False)
    rows = tables["starts"]["rows"]
    right.barh(
        [row[0] for row in rows], [row[1] for row in rows],
        xerr=[[row[1] - row[2] for row in rows], [row[3] - row[1] for row in rows]],
        ecolor=OUTLINE, error_kw={"linewidth": 0.8}, color=OURS, edgecolor=OUTLINE, linewidth=0.6,
    )  # fmt: skip
    right.set_title("Start by Docker Engine")
    right.set_xlabel("ms")
    right.set_yticks([])
    for axes in (left, right):
        axes.invert_yaxis()
