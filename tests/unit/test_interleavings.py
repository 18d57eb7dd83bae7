"""Up to 64 calls at once against a plain model: steps held back, refused, and cut off by kills, in any order."""

from __future__ import annotations

from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from .helpers import PluginHarness
from .interleavings import MOST_AT_ONCE, Interleavings

SEEDS = st.integers(0, (1 << 32) - 1)


class InterleavingMachine(RuleBasedStateMachine):
    """Hypothesis draws what happens; :class:`.interleavings.Interleavings` checks what must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.host = Interleavings(PluginHarness(), Random(0))

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


InterleavingTests = InterleavingMachine.TestCase
InterleavingTests.settings = settings(max_examples=80, stateful_step_count=20)
