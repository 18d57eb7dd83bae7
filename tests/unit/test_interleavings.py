"""Up to 64 calls at once against a plain model: steps held back, refused, and cut off by kills, in any order."""

from __future__ import annotations

from random import Random

from attrs import evolve
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from macvlan_twisted.option_values import ConflictDetection

from .helpers import LAN, PluginHarness
from .interleavings import MOST_AT_ONCE, Interleavings

SEEDS = st.integers(0, (1 << 32) - 1)


class InterleavingMachine(RuleBasedStateMachine):
    """Hypothesis draws what happens; :class:`.interleavings.Interleavings` checks what must hold."""

    config = LAN

    def __init__(self) -> None:
        super().__init__()
        self.host = Interleavings(PluginHarness(config=self.config), Random(0))

    @rule(number=st.integers(1, MOST_AT_ONCE), seed=SEEDS)
    def calls_come(self, number: int, seed: int) -> None:
        self.host.random = Random(seed)
        for _ in range(number):
            self.host.begin_any()

    @rule(number=st.integers(1, 200), seed=SEEDS)
    def steps_go(self, number: int, seed: int) -> None:
        self.host.random = Random(seed)
        self.host.let_go(number)

    @rule(number=st.integers(1, 4), seed=SEEDS)
    def steps_are_refused(self, number: int, seed: int) -> None:
        self.host.random = Random(seed)
        self.host.refuse(number)

    @rule(milliseconds=st.integers(1, 2000))
    def time_passes(self, milliseconds: int) -> None:
        self.host.plugin.clock.advance(milliseconds / 1000)

    @rule()
    def all_settles(self) -> None:
        self.host.settle()
        self.host.check_settled()

    @rule(seed=SEEDS)
    def killed(self, seed: int) -> None:
        self.host.random = Random(seed)
        self.host.kill()
        self.host.check_settled()

    @invariant()
    def what_must_hold(self) -> None:
        self.host.check()

    def teardown(self) -> None:
        """Hypothesis calls it after each example."""
        try:
            self.host.remove_all()
        finally:
            self.host.end_earlier_lives()


class ProbingMachine(InterleavingMachine):
    """With conflict detection. Nobody else is on the LAN, so it changes when things happen, not what happens."""

    config = evolve(LAN, conflict_detection=ConflictDetection.ON)


# A failing course is reported at once. To shrink it takes minutes: add Phase.shrink for that.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)

InterleavingTests = InterleavingMachine.TestCase
InterleavingTests.settings = settings(max_examples=60, stateful_step_count=20, phases=PHASES, print_blob=True)
ProbingTests = ProbingMachine.TestCase
ProbingTests.settings = settings(max_examples=30, stateful_step_count=20, phases=PHASES, print_blob=True)
