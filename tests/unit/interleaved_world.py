"""The world of the interleavings: an engine's calls under way on the fakes, whose steps are held back, refused and cut off."""

from __future__ import annotations

import errno
from collections import Counter
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
from .history import Deed, History

MOST_AT_ONCE = 64
SPACE = "MacvlanTwistedLocal"


@frozen
class Place:
    """One network of the tests."""

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


PLACES = (
    Place(1, "eth0", "192.168.1.0/24", "192.168.1.64/27"),
    Place(2, "eth0", "192.168.1.0/24", "192.168.1.64/26", (("host_access", "true"),)),
    Place(3, "eth1.20", "10.0.0.0/24"),
    Place(4, "eth1.20", "10.9.0.0/24", is_ours=False),
    Place(5, "eth1.30.40", "10.8.0.0/24", is_ours=False),
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
    "claim",
    "open_pool",
}
"""Steps whose refusal is made good at once; where a removal is refused, something may stay until the next start."""


class Everything(set[str]):
    """Holds whatever it is asked for."""

    def __contains__(self, _name: object) -> bool:
        return True


@define(eq=False)
class Call:
    """One call that is under way."""

    what: str
    deeds: list[tuple[Hashable, Deed]]
    succeeded: Callable[[Any], None]
    about: Any = None
    deletes_network: str = ""
    asides: list[Deed] = field(factory=list)
    """What it may do to others."""


@define(eq=False)
class World:
    """What is under way, and what was done, as far as that is known; steps go, and fail, in any order."""

    plugin: PluginHarness
    random: Random
    history: History = field(factory=History)
    under_way: list[Call] = field(factory=list)
    bugs: list[str] = field(factory=list)
    counts: Counter[str] = field(factory=Counter)
    graves: list[tuple[Steps, PluginHarness]] = field(factory=list)
    """Earlier lives. What hangs in them must not go on, as it would if it were collected."""
    pools: dict[str, Place] = field(factory=dict)
    """What the engine was granted, by id."""
    unknown_pools: int = 0
    """Which were granted to an engine that did not hear of it any more."""
    had_containers: set[str] = field(factory=set)
    """Pools that have, or had, addresses of containers."""
    muddled: set[str] = field(factory=set)
    """Pools with addresses of which the engine never heard."""
    endpoints: dict[str, tuple[Place, str, str | None]] = field(factory=dict)
    """All endpoints that ever were asked for: network, address, MAC."""
    away: dict[str, LinkFacts] = field(factory=dict)
    """Links in containers, by endpoint."""
    dead: set[str] = field(factory=set)
    """Endpoints whose links went with their sandboxes."""
    is_swept: bool = True
    """Whether no removal was refused since the last start: if one was, something may be left over until the next."""

    def __attrs_post_init__(self) -> None:
        self._hold()

    # Steps

    def _hold(self) -> None:
        for steps in self._all_steps():
            steps.hold = Everything()

    def _all_steps(self) -> tuple[Steps, Steps, Steps]:
        return self.plugin.steps, self.plugin.records.steps, self.plugin.store.steps

    def _held(self) -> list[tuple[Steps, HeldStep]]:
        """What may be taken next: any of the kernel's, and of each part of the state the first, for one thread writes."""
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
        self.is_swept = False
        if step.name == "forget" and step.arguments[0] in (RecordKind.ENDPOINT, RecordKind.NETWORK):
            kind = "endpoint" if step.arguments[0] is RecordKind.ENDPOINT else "network"
            self.history.doubt((kind, step.arguments[1]), True)
        elif step.name == "release":
            self.history.doubt(("claim", *step.arguments), True)
        elif step.name == "close_pool":
            self.history.doubt(("pool", step.arguments[0]), True)
            self._doubt_claims(step.arguments[0])

    def _doubt_claims(self, pool_id: str) -> None:
        self.muddled.add(pool_id)
        for claim in self.history.things("claim"):
            if claim[1] == pool_id:
                self.history.doubt(claim, True)

    # Calls

    def begin(
        self,
        what: str,
        call: Coroutine[Any, Any, Any],
        deeds: list[tuple[Hashable, Deed]],
        succeeded: Callable[[Any], None] = lambda _: None,
        about: Any = None,
        deletes_network: str = "",
        asides: list[Deed] | None = None,
    ) -> None:
        begun = Call(what, deeds, succeeded, about, deletes_network, asides or [])
        self.under_way.append(begun)
        self.counts["calls"] += 1

        def ended(result: Any) -> None:
            if begun not in self.under_way:  # in a life that is over
                return
            self.under_way.remove(begun)
            for deed in begun.asides:
                self.history.give_up(deed)
            if not isinstance(result, Failure):
                for _thing, deed in begun.deeds:
                    self.history.acknowledge(deed)
                succeeded(result)
                self.counts["acknowledged"] += 1
                return
            self.counts["refused"] += 1
            if not isinstance(result.value, MacvlanError):
                self.bugs.append(f"{what}: {result.getTraceback()}")
            for thing, deed in begun.deeds:
                if deed.makes:
                    self.history.withdraw(thing, deed)
                else:
                    self.history.give_up(deed)

        self.plugin.start(call).addBoth(ended)

    # Ends

    def settle(self) -> None:
        """Let all steps go, and see that each call ends."""
        for _ in range(200):
            self.let_go(100_000)
            if not self.under_way and not self._held():
                break
            self.plugin.clock.advance(1)
        waiting = [call.what for call in self.under_way]
        assert waiting == [], f"these wait for ever: {waiting}"

    def kill(self) -> None:
        """The process is gone; some of what it was about to do has been done, and nobody was answered."""
        kernel, *disks = self._all_steps()
        for step in list(kernel.held):
            if self.random.random() < 0.5:
                self._done_unseen(step)
        for steps in disks:
            for step in steps.held[: self.random.randrange(len(steps.held) + 1)]:
                self._done_unseen(step)
        under_way, self.under_way = self.under_way, []
        for call in under_way:
            for deed in (*call.asides, *(deed for _thing, deed in call.deeds)):
                self.history.give_up(deed)
            if call.what == "RequestPool":
                self.unknown_pools += 1
            elif call.what == "RequestAddress":
                self.muddled.add(call.about)
        self.graves += [(steps, self.plugin) for steps in self._all_steps()]
        self.counts["kills"] += 1
        self.history.tick()
        self.plugin = self.plugin.next_life()
        self.is_swept = True
        self._hold()

    @staticmethod
    def _done_unseen(step: HeldStep) -> None:
        try:
            step.do()
        except MacvlanError:
            return

    def bury(self) -> None:
        """End what hangs in earlier lives, now that it can do no harm."""
        self.under_way.clear()
        self.graves += [(steps, self.plugin) for steps in self._all_steps()]
        for steps in self._all_steps():
            steps.hold = set()
        while any(steps.held for steps, _ in self.graves):
            for steps, plugin in self.graves:
                while steps.held:
                    steps.held.pop(0).fail(LinkError("this life is over"))
                plugin.clock.advance(60)
