"""Boot orders: each on each engine, with live-restore and without, several at a time, for all of them mostly wait."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.daemons import Daemon
from tests.lab.requirements import missing_for_engine
from tests.lab.roots import VERSIONS
from tests.torture.boot_orders import ORDERS, Order
from tests.torture.boot_try import OUTCOME
from tests.torture.part import Part, TortureRun

AT_ONCE = 5
AT_ONCE_IN_SHORT = 3
LONGEST = 1800.0
"""Seconds after which a try is ended."""
LOGS = Path(tempfile.gettempdir(), "macvlan-twisted-torture-boots")
"""For the logs of engine and plugin of tries that were not survived."""
QUICK = 40.0
"""Seconds that an order may take to be drawn for the short form."""


@dataclass
class Try:
    """One order on one engine, in a process of its own."""

    version: str
    live_restore: bool
    order: Order
    began: float = field(default_factory=time.monotonic)

    @property
    def words(self) -> tuple[str, ...]:
        """The arguments of ``python -m tests.torture.boot_try``."""
        return (self.version, "live" if self.live_restore else "plain", self.order.name)

    def start(self) -> None:
        """Start it."""
        self.began = time.monotonic()
        command = (sys.executable, "-B", "-m", "tests.torture.boot_try", *self.words)
        self.process = Daemon("a try", command)
        self.process.start()

    def outcome(self) -> dict[str, Any] | None:
        """Return the outcome; None while the try runs."""
        if self.process.running:
            if time.monotonic() - self.began < LONGEST:
                return None
            self.process.kill()
            return {"lost": [f"still runs after {LONGEST:.0f} s:\n{self.process.log_tail(5)}"], "leaked": []}
        last = self.process.log().rstrip().rpartition("\n")[2]
        if self.process.status != 0 or not last.startswith(OUTCOME):
            return {"lost": [f"the try itself failed:\n{self.process.log_tail(30)}"], "leaked": []}
        found: dict[str, Any] = json.loads(last.removeprefix(OUTCOME))
        if found["lost"] or found["leaked"]:
            LOGS.mkdir(parents=True, exist_ok=True)
            (LOGS / f"{'-'.join(self.words)}.log").write_text(self.process.log(), encoding="utf-8")
        return found


def tries(torture: TortureRun) -> list[Try]:
    """Lay out what is tried: all of it in any order, or in the short form one quick order an engine."""
    usable = [version for version in VERSIONS if not missing_for_engine(version)]
    if torture.short:
        quick = torture.random.sample([order for order in ORDERS if order.seconds < QUICK], len(usable))
        return [
            Try(version, torture.random.random() < 0.5, order)
            for version, order in zip(usable, quick, strict=True)
        ]
    whole = [Try(version, live, order) for order in ORDERS for version in usable for live in (False, True)]
    torture.random.shuffle(whole)
    return whole


def run(torture: TortureRun) -> None:
    """Try them all, or until the time is up."""
    waiting = tries(torture)
    whole = len(waiting)
    under_way: list[Try] = []
    collected, next_word = 0, 0.0
    taken: dict[str, list[float]] = defaultdict(list)
    try:
        while under_way or (waiting and not torture.is_over):
            most = AT_ONCE_IN_SHORT if torture.short else AT_ONCE
            while waiting and len(under_way) < most and not torture.is_over:
                under_way.append(waiting.pop(0))
                under_way[-1].start()
            for each in list(under_way):
                outcome = each.outcome()
                if outcome is None:
                    continue
                under_way.remove(each)
                torture.say(f"{' '.join(each.words)}: {summary(outcome)}")
                count(torture, each, outcome)
                collected += outcome.get("collected", 0)
                if "taking" in outcome:
                    taken[each.order.name].append(outcome["taking"] + outcome["until_running"])
            if time.monotonic() > next_word:
                torture.progress(whole, ", ".join(" ".join(each.words) for each in under_way))
                next_word = time.monotonic() + 10
            time.sleep(0.2)
    finally:
        for each in under_way:
            each.process.kill()
    if waiting:
        torture.tally.figures["not tried, for want of time"] = str(len(waiting))
    torture.tally.figures["endpoints and addresses left to the background collection"] = str(collected)
    for order in ORDERS:
        if times := taken[order.name]:
            span = f"{min(times):.0f} to {max(times):.0f} s" if len(times) > 1 else f"{times[0]:.0f} s"
            torture.tally.figures[f"until all ran: {order.what}"] = span


def summary(outcome: dict[str, Any]) -> str:
    """Summarize an outcome."""
    if outcome["lost"] or outcome["leaked"]:
        return str((outcome["lost"] + outcome["leaked"])[0])[:300]
    return f"well; {outcome['taking']:.0f} s, and {outcome['until_running']:.0f} s until all ran"


def count(torture: TortureRun, one: Try, outcome: dict[str, Any]) -> None:
    """Count a try by its worst outcome."""
    name = " ".join(one.words)
    if outcome["lost"]:
        torture.tally.lose(f"{name}: {'; '.join(outcome['lost'] + outcome['leaked'])}")
    elif outcome["leaked"]:
        torture.tally.leak(f"{name}: {'; '.join(outcome['leaked'])}")
    else:
        torture.tally.survive()


def missing() -> str:
    """Return what the machine lacks; any engine will do."""
    lacks = [missing_for_engine(version) for version in VERSIONS]
    return "" if "" in lacks else lacks[0]


PART = Part(
    "boots",
    "engine and plugin are started, stopped and killed in every order, with real engines",
    run,
    short_seconds=90,
    seconds=1500,
    missing=missing,
)
