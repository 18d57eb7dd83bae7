"""
The steps that leave a trace: every commit, every change of the kernel, every packet that commits somebody, every answer.

A kill can fall before or after each of them, and nothing else that we do is seen by anybody. So each has a name, and
happens within ``with`` of its :class:`Failpoint`::

    _MAKE_PORT = Step("netlink.macvlan.make", "a macvlan link is made")
    ...
    with _MAKE_PORT:
        netlink.link("add", ...)

Nothing follows from a step but that :func:`observe` can be told of it. Tests do that: they kill the program before and
after each one, and have the kernel or the disk refuse it. ``tests/unit/test_failpoints.py`` reads the code, and fails where
something that leaves a trace is done outside of a step.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Protocol


class FailpointObserver(Protocol):
    """Is told of each step, on the thread that takes it; what it raises before a step looks as if the step had failed."""

    def __call__(self, step: Failpoint, is_done: bool) -> None:
        """
        :param is_done: ``False`` before the step, ``True`` after it. Of a step that failed only the beginning is told.
        """


class Failpoint:
    """One step, known by its *name* of ``room.thing.deed``; it may be taken on several threads at once."""

    __slots__ = ("name", "what")

    def __init__(self, name: str, what: str) -> None:
        if name in _steps:
            raise ValueError(f"there is a step {name} already: choose another name")
        self.name = name
        self.what = what
        _steps[name] = self

    def __enter__(self) -> None:
        if _observer is not None:
            _observer(self, False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if _observer is not None and error is None:
            _observer(self, True)

    def __repr__(self) -> str:
        return f"<Step {self.name}>"


_steps: dict[str, Failpoint] = {}
_observer: FailpointObserver | None = None


def all_failpoints() -> dict[str, Failpoint]:
    """By name: those of the modules that have been imported."""
    return dict(_steps)


def observe(observer: FailpointObserver | None) -> Callable[[], None]:
    """
    Have *observer* told of every step of this process from now on.

    :return: to be called when the one before is to be told again.
    """
    global _observer  # steps are taken everywhere, and would otherwise carry it everywhere
    before, _observer = _observer, observer

    def stop() -> None:
        global _observer  # noqa: PLW0603
        _observer = before

    return stop
