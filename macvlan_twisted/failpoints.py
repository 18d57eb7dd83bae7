"""
Failpoints: names for every operation with a lasting effect, where tests inject crashes and errors.

Commits, netlink requests, packets that create an obligation, and replies are such operations. A crash before or after one
of them differs from a crash elsewhere. Each operation runs within ``with`` of its :class:`Failpoint`::

    _MAKE_LINK = Failpoint("netlink.macvlan.make", "a macvlan link is made")
    ...
    with _MAKE_LINK:
        netlink.link("add", ...)

In production a failpoint does nothing. Tests kill the program at each one, or raise errors of the kernel and the disk, from
an observer (:func:`observe`). ``tests/unit/test_failpoints.py`` reads the source, and fails where such an operation is
outside of a failpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Protocol


class FailpointObserver(Protocol):
    """Is called at each failpoint, in the thread that passes it."""

    def __call__(self, failpoint: Failpoint, is_done: bool, /) -> None:
        """
        An exception that is raised before the operation replaces the operation.

        :param is_done: ``False`` before the operation, ``True`` after it. There is no second call if the operation fails.
        """


class Failpoint:
    """
    One operation. Several threads may pass it at once.

    :param name: ``room.thing.deed``, unique in the program.
    :param what: what happens, for the reference.
    """

    __slots__ = ("name", "what")

    def __init__(self, name: str, what: str) -> None:
        if name in _failpoints:
            raise ValueError(f"there is a failpoint {name} already: choose another name")
        self.name = name
        self.what = what
        _failpoints[name] = self

    def __enter__(self) -> None:
        if _observer is not None:
            _observer(self, False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if _observer is not None and error is None:
            _observer(self, True)

    def __repr__(self) -> str:
        return f"<Failpoint {self.name}>"


_failpoints: dict[str, Failpoint] = {}
_observer: FailpointObserver | None = None


def all_failpoints() -> dict[str, Failpoint]:
    """The failpoints of all modules that are imported, by name."""
    return dict(_failpoints)


def observe(observer: FailpointObserver | None) -> Callable[[], None]:
    """
    Replace the observer of this process.

    :return: a function that restores the previous one.
    """
    global _observer  # every module has failpoints, and would have to pass it on
    before, _observer = _observer, observer

    def restore() -> None:
        global _observer  # noqa: PLW0603
        _observer = before

    return restore
