"""
What the interleavings are made of: calls under way on the fakes, their steps held back, refused and cut off, and a plain
model of what may exist after them.
"""

from __future__ import annotations

import errno
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Hashable
from random import Random
from typing import Any

from attrs import define, field, frozen
from twisted.python.failure import Failure

from macvlan_twisted.addresses import IPAddress, parse_network
from macvlan_twisted.errors import LinkError, MacvlanError
from macvlan_twisted.netlink.kernel import LinkFacts
from macvlan_twisted.state.interfaces import RecordKind

from .held_steps import HeldStep, Steps, disk_refuses
from .helpers import PluginHarness

FOR_EVER = 1 << 62


@define(eq=False)
class Effect:
    """The effect of one call on one object: it creates or removes it."""

    makes: bool
    began: int
    ended: int = FOR_EVER
    is_certain: bool = False
    """Whether the call was acknowledged; otherwise it may have had the effect or none."""


@define
class History:
    """
    The effects on each object.

    The service may order overlapping calls as it likes, but not those of which one got its reply before the other came.
    A call without a reply (a kill, or a refused step of a removal) has happened or has not.
    """

    now: int = 0
    effects: defaultdict[Hashable, list[Effect]] = field(factory=lambda: defaultdict(list))

    def tick(self) -> int:
        self.now += 1
        return self.now

    def begin(self, thing: Hashable, makes: bool) -> Effect:
        effect = Effect(makes, self.tick())
        self.effects[thing].append(effect)
        return effect

    def acknowledge(self, effect: Effect) -> None:
        effect.ended, effect.is_certain = self.tick(), True

    def end_in_doubt(self, effect: Effect) -> None:
        """The call failed half-way, or its outcome is unknown."""
        effect.ended = self.tick()

    def withdraw(self, thing: Hashable, effect: Effect) -> None:
        """The call failed and was undone."""
        self.effects[thing].remove(effect)

    def doubt(self, thing: Hashable, may_be_there: bool) -> None:
        """From now on the object may exist or not."""
        self.end_in_doubt(self.begin(thing, may_be_there))

    def possible(self, thing: Hashable) -> set[bool]:
        """Whether the object exists: one answer, or both."""
        effects = self.effects.get(thing, [])
        last = max((effect.began for effect in effects if effect.is_certain), default=-1)
        # A later certain effect replaces those that had ended before it began.
        left = [effect for effect in effects if effect.ended >= last]
        found = {effect.makes for effect in left}
        if not any(effect.is_certain for effect in left):
            found.add(False)
        return found

    def surely_there(self, thing: Hashable) -> bool:
        return self.possible(thing) == {True}

    def surely_gone(self, thing: Hashable) -> bool:
        return self.possible(thing) == {False}

    def things(self, kind: str) -> list[Any]:
        return [thing for thing in self.effects if isinstance(thing, tuple) and thing[0] == kind]


MOST_AT_ONCE = 64
SPACE = "MacvlanTwistedLocal"


@frozen
class NetworkCase:
    """One of the networks."""

    number: int
    parent: str
    subnet: str
    part: str | None = None
    options: tuple[tuple[str, str], ...] = ()
    is_ours: bool = True

    @property
    def network_id(self) -> str:
        return f"{self.number:064x}"

    @property
    def gateway(self) -> IPAddress:
        return parse_network(self.subnet).network_address + 1


NETWORKS = (
    NetworkCase(1, "eth0", "192.168.1.0/24", "192.168.1.64/27"),
    NetworkCase(2, "eth0", "192.168.1.0/24", "192.168.1.64/26", (("host_access", "true"),)),
    NetworkCase(3, "eth1.20", "10.0.0.0/24"),
    NetworkCase(4, "eth1.20", "10.9.0.0/24", is_ours=False),
    NetworkCase(5, "eth1.30.40", "10.8.0.0/24", is_ours=False),
)
MACS = (None, None, None, "02:00:00:00:aa:01", "02:00:00:00:aa:02")

KERNEL_ERRORS = (
    errno.EBUSY,
    errno.EEXIST,
    errno.ENODEV,
    errno.ENOBUFS,
    errno.EPERM,
    errno.EINVAL,
    errno.ENOMEM,
)
MAKING = {
    "add_macvlan",
    "add_vlan",
    "add_address",
    "add_host_route",
    "configure",
    "save",
    "save_allocation",
    "save_pool",
}
"""Steps whose failure is undone at once. After a failed removal something may stay until the next start."""


class Everything(set[str]):
    """A set that holds any name."""

    def __contains__(self, _name: object) -> bool:
        return True


@define(eq=False)
class Call:
    """One call that is under way."""

    what: str
    effects: list[tuple[Hashable, Effect]]
    succeeded: Callable[[Any], None]
    about: Any = None
    deletes_network: str = ""
    side_effects: list[Effect] = field(factory=list)
    """Possible effects on other objects."""


@define(eq=False)
class World:
    """Calls under way, and what is known of their effects; steps go and fail in any order."""

    plugin: PluginHarness
    random: Random
    history: History = field(factory=History)
    under_way: list[Call] = field(factory=list)
    faults: list[str] = field(factory=list)
    counts: Counter[str] = field(factory=Counter)
    earlier_lives: list[tuple[Steps, PluginHarness]] = field(factory=list)
    """Kept from the garbage collector, which would let their calls continue."""
    pools: dict[str, NetworkCase] = field(factory=dict)
    """The pools that the engine got, by id."""
    unknown_pools: int = 0
    """The number of pools whose ids the engine never got."""
    had_containers: set[str] = field(factory=set)
    names: dict[tuple[str, str], Any] = field(factory=dict)
    """Pools that have, or had, addresses of containers."""
    uncertain_pools: set[str] = field(factory=set)
    """Pools with addresses that the engine may not know."""
    endpoints: dict[str, tuple[NetworkCase, str, str | None]] = field(factory=dict)
    """All endpoints ever requested: network, address, MAC."""
    in_containers: dict[str, LinkFacts] = field(factory=dict)
    """Links in containers, by endpoint."""
    destroyed: set[str] = field(factory=set)
    """Endpoints whose links the kernel deleted with their sandboxes."""
    is_clean: bool = True
    """Whether no removal has failed since the last start; otherwise something may stay until the next."""

    def __attrs_post_init__(self) -> None:
        self._hold()

    # Steps

    def _hold(self) -> None:
        for steps in self._all_steps():
            steps.hold = Everything()

    def _all_steps(self) -> tuple[Steps, Steps, Steps]:
        return self.plugin.steps, self.plugin.records.steps, self.plugin.store.steps

    def _held(self) -> list[tuple[Steps, HeldStep]]:
        """Steps that may be next: any on the kernel, but the first on each store, as one thread writes."""
        kernel, *disks = self._all_steps()
        return [(kernel, step) for step in kernel.held] + [
            (each, each.held[0]) for each in disks if each.held
        ]

    def let_go(self, number: int) -> None:
        for _ in range(number):
            held = self._held()
            if not held:
                return
            steps, step = self.random.choice(held)
            steps.held.remove(step)
            step.go()

    def refuse(self, number: int) -> None:
        for _ in range(number):
            held = self._held()
            if not held:
                return
            steps, step = self.random.choice(held)
            steps.held.remove(step)
            self._note_refusal(step)
            message = f"{step.name}: a test refuses it"
            is_disk = steps is not self.plugin.steps
            step.fail(
                disk_refuses(message, 0) if is_disk else LinkError(message, self.random.choice(KERNEL_ERRORS))
            )

    def _note_refusal(self, step: HeldStep) -> None:
        self.counts["steps refused"] += 1
        if step.name in MAKING:
            return
        self.is_clean = False
        if step.name == "erase" and step.arguments[0] in (RecordKind.ENDPOINT, RecordKind.NETWORK):
            kind = "endpoint" if step.arguments[0] is RecordKind.ENDPOINT else "network"
            self.history.doubt((kind, step.arguments[1]), True)
        elif step.name == "erase_allocation":
            self.history.doubt(("claim", *step.arguments), True)
        elif step.name == "erase_pool":
            self.history.doubt(("pool", step.arguments[0]), True)
            self._doubt_claims(step.arguments[0])

    def _doubt_claims(self, pool_id: str) -> None:
        self.uncertain_pools.add(pool_id)
        for claim in self.history.things("claim"):
            if claim[1] == pool_id:
                self.history.doubt(claim, True)

    # Calls

    def begin(
        self,
        what: str,
        call: Coroutine[Any, Any, Any],
        effects: list[tuple[Hashable, Effect]],
        succeeded: Callable[[Any], None] = lambda _: None,
        about: Any = None,
        deletes_network: str = "",
        side_effects: list[Effect] | None = None,
    ) -> None:
        begun = Call(what, effects, succeeded, about, deletes_network, side_effects or [])
        self.under_way.append(begun)
        self.counts["calls"] += 1

        def ended(result: Any) -> None:
            if begun not in self.under_way:  # in a life that is over
                return
            self.under_way.remove(begun)
            for effect in begun.side_effects:
                self.history.end_in_doubt(effect)
            if not isinstance(result, Failure):
                for _thing, effect in begun.effects:
                    self.history.acknowledge(effect)
                succeeded(result)
                self.counts["acknowledged"] += 1
                return
            self.counts["refused"] += 1
            if not isinstance(result.value, MacvlanError):
                self.faults.append(f"{what}: {result.getTraceback()}")
            for thing, effect in begun.effects:
                if effect.makes:
                    self.history.withdraw(thing, effect)
                else:
                    self.history.end_in_doubt(effect)

        self.plugin.start(call).addBoth(ended)

    # Ends

    def settle(self) -> None:
        """Let all steps go, and check that each call ends."""
        for _ in range(200):
            self.let_go(100_000)
            if not self.under_way and not self._held():
                break
            self.plugin.clock.advance(1)
        waiting = [call.what for call in self.under_way]
        assert waiting == [], f"these wait for ever: {waiting}"

    def kill(self) -> None:
        """Kill the process: some of its steps are done, and no call gets a reply."""
        kernel, *disks = self._all_steps()
        for step in list(kernel.held):
            if self.random.random() < 0.5:
                self._done_unseen(step)
        for steps in disks:
            for step in steps.held[: self.random.randrange(len(steps.held) + 1)]:
                self._done_unseen(step)
        under_way, self.under_way = self.under_way, []
        for call in under_way:
            for effect in (*call.side_effects, *(effect for _thing, effect in call.effects)):
                self.history.end_in_doubt(effect)
            if call.what == "RequestPool":
                self.unknown_pools += 1
            elif call.what == "RequestAddress":
                self.uncertain_pools.add(call.about)
        self.earlier_lives += [(steps, self.plugin) for steps in self._all_steps()]
        self.counts["kills"] += 1
        self.history.tick()
        self.plugin = self.plugin.next_life()
        self.is_clean = True
        self._hold()

    @staticmethod
    def _done_unseen(step: HeldStep) -> None:
        try:
            step.do()
        except MacvlanError:
            return

    def end_earlier_lives(self) -> None:
        """Let the calls of earlier lives fail, now that they can do no harm."""
        self.under_way.clear()
        self.earlier_lives += [(steps, self.plugin) for steps in self._all_steps()]
        for steps in self._all_steps():
            steps.hold = set()
        while any(steps.held for steps, _ in self.earlier_lives):
            for steps, plugin in self.earlier_lives:
                while steps.held:
                    steps.held.pop(0).fail(LinkError("this life is over"))
                plugin.clock.advance(60)
