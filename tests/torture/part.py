"""What a part of the torture gets, and what it reports."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

MOST_MORE = 240.0
"""Seconds that a part may take beyond its limit to make its minimum of tries."""


@dataclass
class Tally:
    """The counts of a part. `tried` is the sum of the three others; each try counts by its worst outcome."""

    tried: int = 0
    survived: int = 0
    lost: int = 0
    """Something acknowledged was missing afterwards, a call was not answered properly, or something foreign was touched."""
    leaked: int = 0
    """Something of ours was left behind."""
    findings: list[str] = field(default_factory=list)
    """A line for each try that was not survived."""
    figures: dict[str, str] = field(default_factory=dict)
    """What was measured, by name."""

    def survive(self) -> None:
        """Count a try that went well."""
        self.tried += 1
        self.survived += 1

    def lose(self, finding: str) -> None:
        """Count a try that lost something."""
        self.tried += 1
        self.lost += 1
        self.findings.append(f"lost: {finding}")

    def leak(self, finding: str) -> None:
        """Count a try that left something behind."""
        self.tried += 1
        self.leaked += 1
        self.findings.append(f"leaked: {finding}")

    def summary(self) -> str:
        """Return the counts in one line."""
        return f"{self.tried} tried, {self.survived} survived, {self.lost} lost, {self.leaked} leaked"


@dataclass
class TortureRun:
    """One run of a part: its settings, its randomness, and its progress."""

    name: str
    short: bool
    """The form that fits into continuous integration: a sample, chosen by the seed."""
    seed: int
    seconds: float
    """The run ends after that time; what was not tried is reported as a figure."""
    say: Callable[[str], None]
    least: int = 1
    """The minimum of tries, made even if time is up: on a busy machine the preparation alone may take all of it."""
    scenarios: tuple[str, ...] = ()
    """For parts that run scenarios: which ones; all if empty."""
    tally: Tally = field(default_factory=Tally)
    began: float = field(default_factory=time.monotonic)
    _last_report: float = 0.0

    def __post_init__(self) -> None:
        """Seed the randomness of this part, independent of other parts."""
        self.random = Random(f"{self.name} {self.seed}")

    @property
    def is_over(self) -> bool:
        """Whether time is up and the minimum is tried, or cannot be."""
        beyond = time.monotonic() - self.began - self.seconds
        return beyond >= (0 if self.tally.tried >= self.least else MOST_MORE)

    def wants(self, scenario: str) -> bool:
        """Whether a scenario is to run."""
        return not self.scenarios or scenario in self.scenarios

    def progress(self, of: int | None = None, doing: str = "") -> None:
        """Report progress, every two seconds at most."""
        now = time.monotonic()
        if now - self._last_report < 2:
            return
        self._last_report = now
        whole = "" if of is None else f" of {of}"
        self.say(
            f"{now - self.began:5.0f} s  {self.tally.summary()}{whole}" + (f"  ({doing})" if doing else "")
        )


@dataclass(frozen=True)
class Part:
    """One part of the torture."""

    name: str
    what: str
    """One line for the help."""
    run: Callable[[TortureRun], None]
    """Tries until all is tried or :attr:`TortureRun.is_over`, and counts in :attr:`TortureRun.tally`."""
    short_seconds: float
    seconds: float
    missing: Callable[[], str] = lambda: ""
    """What the machine lacks for it; empty if nothing."""
    least: int = 8
    """Tries that are made even if that takes longer."""
