"""Steps on kernel and disk that a test refuses or holds."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, fail, maybeDeferred

from macvlan_twisted.addresses import IPAddress
from macvlan_twisted.errors import LinkError, StateError
from macvlan_twisted.state.interfaces import Allocation, Document, LastAddress, RecordKind, ReturnedAddress
from macvlan_twisted.testing.state import MemoryAddressStore, MemoryHostRecords

T = TypeVar("T")


@define
class HeldStep:
    """A step that waits."""

    name: str
    do: Callable[[], Any]
    done: Deferred[Any]
    arguments: tuple[Any, ...] = ()

    def go(self) -> None:
        maybeDeferred(self.do).chainDeferred(self.done)

    def fail(self, error: Exception) -> None:
        """Fail without doing it."""
        self.done.errback(error)


@define
class Steps:
    """
    Takes steps at once, as :class:`~macvlan_twisted.worker_threads.RunInThread` asks for it, and on demand refuses
    them or keeps them for the test to let go.
    """

    taken: list[str] = field(factory=list)
    refuse: dict[str, int] = field(factory=dict)
    """By a function's name: the errno with which it fails."""
    refuse_number: int | None = None
    """Which step, from 1 on, fails once."""
    hold: set[str] = field(factory=set)
    held: list[HeldStep] = field(factory=list)
    failure: Callable[[str, int], Exception] = LinkError

    def __call__(self, function: Callable[..., T], /, *arguments: Any) -> Deferred[T]:
        name = function.__name__
        self.taken.append(name)
        if self.refuse_number == len(self.taken) or name in self.refuse:
            return fail(self.failure(f"{name}: a test refuses it", self.refuse.get(name, errno.EIO)))
        if name in self.hold:
            step = HeldStep(name, lambda: function(*arguments), Deferred(), arguments)
            self.held.append(step)
            return step.done
        return maybeDeferred(function, *arguments)

    def let_go(self, name: str | None = None) -> None:
        """Take the first held step (called *name*)."""
        step = next(each for each in self.held if name in (None, each.name))
        self.held.remove(step)
        step.go()

    def let_all_go(self) -> None:
        self.hold.clear()
        while self.held:
            self.let_go()


def disk_refuses(message: str, number: int) -> Exception:
    return StateError(message)


class ScriptedRecords(MemoryHostRecords):
    """Records whose writes are steps."""

    def __init__(self, instance: str = "0123abcd", link_group: int = 70000) -> None:
        super().__init__(instance, link_group)
        self.steps = Steps(failure=disk_refuses)

    def save(self, kind: RecordKind, key: str, document: Document) -> Deferred[None]:
        return self.steps(super().save, kind, key, document)  # type: ignore[arg-type]

    def erase(self, kind: RecordKind, key: str) -> Deferred[None]:
        return self.steps(super().erase, kind, key)  # type: ignore[arg-type]

    def all_rows(self) -> dict[RecordKind, dict[str, Document]]:
        return {kind: dict(rows) for kind, rows in self.rows.items() if rows}


class ScriptedStore(MemoryAddressStore):
    """An address store whose writes are steps."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = Steps(failure=disk_refuses)

    def save_pool(self, pool_id: str, document: Document) -> Deferred[None]:
        return self.steps(super().save_pool, pool_id, document)  # type: ignore[arg-type]

    def erase_pool(self, pool_id: str) -> Deferred[None]:
        return self.steps(super().erase_pool, pool_id)  # type: ignore[arg-type]

    def save_allocation(
        self,
        allocation: Allocation,
        shared_set: str,
        advances: bool,
        forgotten_names: Sequence[str] = (),
        forgotten_sets: Sequence[str] = (),
        forgotten_returns: Sequence[IPAddress] = (),
    ) -> Deferred[None]:
        rest = (allocation, shared_set, advances, forgotten_names, forgotten_sets, forgotten_returns)
        return self.steps(super().save_allocation, *rest)  # type: ignore[arg-type]

    def save_last_addresses(
        self, saved: Sequence[LastAddress], forgotten: Sequence[tuple[str, str]]
    ) -> Deferred[None]:
        return self.steps(super().save_last_addresses, saved, forgotten)  # type: ignore[arg-type]

    def erase_allocation(
        self,
        pool_id: str,
        address: IPAddress,
        returned: ReturnedAddress | None = None,
        forgotten_returns: Sequence[IPAddress] = (),
    ) -> Deferred[None]:
        rest = (pool_id, address, returned, forgotten_returns)
        return self.steps(super().erase_allocation, *rest)  # type: ignore[arg-type]
