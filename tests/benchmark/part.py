"""What a part of the benchmark gets, and what it reports."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from tests.benchmark.arithmetic import Spread

Cell = str | int | float


@dataclass(frozen=True)
class Wanted:
    """What a figure should be."""

    how: Literal["at least", "at most"]
    value: float

    def is_met(self, value: float) -> bool:
        """Whether the figure is as wished."""
        return value >= self.value if self.how == "at least" else value <= self.value

    def __str__(self) -> str:
        """Describe the wish."""
        return f"{self.how} {self.value:g}"


def at_least(value: float) -> Wanted:
    """Return a wish."""
    return Wanted("at least", value)


def at_most(value: float) -> Wanted:
    """Return a wish."""
    return Wanted("at most", value)


@dataclass(frozen=True)
class Figure:
    """One number that was measured."""

    name: str
    value: float
    unit: str
    spread: tuple[float, float] | None = None
    """Between which values the middle half of the measurements was."""
    wanted: str = ""
    is_met: bool | None = None


@dataclass(frozen=True)
class Table:
    """More than one number."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: list[list[Cell]]


@dataclass
class Measurement:
    """One run of a part: its settings, and its results."""

    name: str
    short: bool
    seconds: float
    """How long one measurement takes."""
    engine: str
    """The version of Docker Engine, where one is needed."""
    say: Callable[[str], None]
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    client: list[float] = field(default_factory=list)
    """Which share of a processor the client took, in each measurement."""
    began: float = field(default_factory=time.monotonic)

    def number(self, long: int, short: int) -> int:
        """Choose how often something is done."""
        return short if self.short else long

    def rest(self, seconds: float) -> None:
        """Wait until the service has done what it does after a reply; a short run does not wait for all of it."""
        time.sleep(seconds / 5 if self.short else seconds)

    def figure(self, name: str, value: float | Spread, unit: str, wanted: Wanted | None = None) -> None:
        """Report a number."""
        spread = (value.low, value.high) if isinstance(value, Spread) else None
        number = value.median if isinstance(value, Spread) else value
        met = None if wanted is None else wanted.is_met(number)
        figure = Figure(name, number, unit, spread, "" if wanted is None else str(wanted), met)
        self.figures.append(figure)
        self.say(told(figure))

    def table(self, name: str, title: str, columns: Sequence[str], rows: list[list[Cell]]) -> None:
        """Report a table."""
        self.tables.append(Table(name, title, tuple(columns), rows))

    def document(self) -> dict[str, Any]:
        """Return all of it as JSON has it."""
        return {
            "figures": [asdict(each) for each in self.figures],
            "tables": [asdict(each) for each in self.tables],
            "notes": self.notes,
            "client": max(self.client, default=0.0),
        }


@dataclass(frozen=True)
class Part:
    """One part of the benchmark."""

    name: str
    what: str
    """One line for the help."""
    run: Callable[[Measurement], None]
    missing: Callable[[Measurement], str] = lambda _: ""
    """What the machine lacks for it; empty if nothing."""


def shown(value: Cell) -> str:
    """Write a number with three digits that mean something."""
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"


def told(figure: Figure) -> str:
    """Return a figure as one line."""
    line = f"{figure.name}: {shown(figure.value)} {figure.unit}".rstrip()
    if figure.spread is not None:
        line += f" ({shown(figure.spread[0])} to {shown(figure.spread[1])})"
    if figure.is_met is not None:
        line += f", wanted {figure.wanted}: {'yes' if figure.is_met else 'NO'}"
    return line
