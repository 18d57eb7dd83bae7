"""Calls that overlap in any order, with failpoints held, refused and cut off, against a plain model."""

from __future__ import annotations

import traceback
from collections import Counter
from random import Random

from tests.torture.part import Part, TortureRun
from tests.unit.helpers import PluginHarness
from tests.unit.interleavings import MOST_AT_ONCE, Interleavings

EXAMPLES, SHORT_EXAMPLES = 20_000, 400


def act(host: Interleavings, random: Random, number: int) -> None:
    """Do `number` things, most of which meet others half-way."""
    for _ in range(number):
        (what,) = random.choices(("calls", "steps", "refusal", "settle", "kill"), (8, 8, 2, 2, 1))
        if what == "calls":
            for _ in range(random.choice((1, 2, 8, MOST_AT_ONCE))):
                host.begin_any()
        elif what == "steps":
            host.let_go(random.choice((1, 5, 40, 200)))
        elif what == "refusal":
            host.refuse(random.randint(1, 4))
        elif what == "settle":
            host.settle()
            host.check_settled()
        else:
            host.kill()
            host.check_settled()
        host.check()


def example(seed: str) -> Counter[str]:
    """Run one example, and return counts of what happened."""
    random = Random(seed)
    host = Interleavings(PluginHarness(), random)
    try:
        act(host, random, random.randint(3, 30))
        host.remove_all()
    finally:
        host.end_earlier_lives()
    return host.counts


def run(torture: TortureRun) -> None:
    """Run many examples."""
    counts: Counter[str] = Counter()
    number = SHORT_EXAMPLES if torture.short else EXAMPLES
    for _ in range(number):
        if torture.is_over:
            break
        seed = f"{torture.random.randrange(1 << 32):08x}"
        try:
            counts += example(seed)
        except Exception as error:
            torture.tally.lose(f"example {seed}: {''.join(traceback.format_exception(error)[-2:])}")
        else:
            torture.tally.survive()
        torture.progress(number, f"{counts['calls']} calls")
    torture.tally.figures.update({name: f"{count}" for name, count in counts.items()})


PART = Part(
    "interleavings",
    "calls, refusals and kills in random order, on fakes, compared with a simple model",
    run,
    short_seconds=20,
    seconds=600,
    least=20,
)
