"""What may be there after calls that overlapped: the plain model of the interleavings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from typing import Any

from attrs import define, field

FOR_EVER = 1 << 62


@define(eq=False)
class Deed:
    """One call's effect on one thing: it makes it, or removes it."""

    makes: bool
    began: int
    ended: int = FOR_EVER
    is_certain: bool = False
    """Whether it was acknowledged; else it may have had its effect, or none."""


@define
class History:
    """
    What was done to each thing, in what order as far as there was one.

    The service may take calls that overlap in any order, but not those of which one had been answered before the other
    came. What was never answered, because a kill came or a step of its removal was refused, has happened or has not.
    """

    now: int = 0
    deeds: defaultdict[Hashable, list[Deed]] = field(factory=lambda: defaultdict(list))

    def tick(self) -> int:
        self.now += 1
        return self.now

    def begin(self, thing: Hashable, makes: bool) -> Deed:
        deed = Deed(makes, self.tick())
        self.deeds[thing].append(deed)
        return deed

    def acknowledge(self, deed: Deed) -> None:
        deed.ended, deed.is_certain = self.tick(), True

    def give_up(self, deed: Deed) -> None:
        """It was refused half-way, or nobody knows what became of it."""
        deed.ended = self.tick()

    def withdraw(self, thing: Hashable, deed: Deed) -> None:
        """It was refused and undone: it has no effect."""
        self.deeds[thing].remove(deed)

    def doubt(self, thing: Hashable, may_be_there: bool) -> None:
        """For a reason of its own, it may be there, or may not."""
        self.give_up(self.begin(thing, may_be_there))

    def may_be(self, thing: Hashable) -> set[bool]:
        """Whether it is there: one answer, or both."""
        deeds = self.deeds.get(thing, [])
        last = max((deed.began for deed in deeds if deed.is_certain), default=-1)
        # What had ended before a certain one began is of the past.
        left = [deed for deed in deeds if deed.ended >= last]
        found = {deed.makes for deed in left}
        if not any(deed.is_certain for deed in left):
            found.add(False)
        return found

    def surely_there(self, thing: Hashable) -> bool:
        return self.may_be(thing) == {True}

    def surely_gone(self, thing: Hashable) -> bool:
        return self.may_be(thing) == {False}

    def things(self, kind: str) -> list[Any]:
        return [thing for thing in self.deeds if isinstance(thing, tuple) and thing[0] == kind]
