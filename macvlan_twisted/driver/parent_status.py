"""Parents that are not there, or not as networks need them: which, since when and why. Each state is told once."""

from __future__ import annotations

import errno
from collections.abc import Callable

from attrs import frozen
from twisted.logger import Logger

from ..errors import LinkError

_log = Logger(namespace="macvlan_twisted.driver")


class ParentAbsent(LinkError):
    """A parent is not there, since *missing*, which is itself or lies below it, is not."""

    def __init__(self, parent: str, missing: str, message: str = "") -> None:
        super().__init__(message or _told(parent, missing), errno.ENODEV)
        self.parent = parent
        self.missing = missing


@frozen
class _Absence:
    missing: str
    since: float


class ParentStatus:
    """:param seconds: tells the time, of a clock that is never set."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._absent: dict[str, _Absence] = {}
        self._unusable: dict[str, str] = {}

    def is_in_doubt(self, parent: str) -> bool:
        """Whether something was wrong with it when it was looked at."""
        return parent in self._absent or parent in self._unusable

    def is_absent(self, parent: str) -> bool:
        return parent in self._absent

    def why_absent(self, parent: str) -> str:
        """What is to be said where *parent* is needed, and is not there."""
        absence = self._absent.get(parent)
        if absence is None:
            return _told(parent, parent)
        return _told(parent, absence.missing, _duration(self._seconds() - absence.since))

    def absent(self, absence: ParentAbsent, networks: int) -> None:
        """:param networks: how many wait."""
        parent, before = absence.parent, self._absent.get(absence.parent)
        if before is not None and before.missing == absence.missing:
            return
        since = self._seconds() if before is None else before.since
        self._absent[parent] = _Absence(absence.missing, since)
        self._unusable.pop(parent, None)
        _log.warn(
            "parent {parent} is not there{below}: it is awaited; its networks ({networks}) are kept, and their containers "
            "can be started as soon as it is back",
            parent=parent,
            below=_below(parent, absence.missing),
            networks=networks,
        )

    def unusable(self, parent: str, reason: str) -> None:
        """It is there, and containers cannot start on it, or not all."""
        self._back(parent)
        if self._unusable.get(parent) != reason:
            self._unusable[parent] = reason
            _log.error("parent {parent} is there, but: {reason}", parent=parent, reason=reason)

    def available(self, parent: str) -> None:
        self._back(parent)
        if self._unusable.pop(parent, None) is not None:
            _log.info("parent {parent} is as it is to be again", parent=parent)

    def _back(self, parent: str) -> None:
        absence = self._absent.pop(parent, None)
        if absence is not None:
            _log.info(
                "parent {parent} is there, after {duration}: its networks can be used",
                parent=parent,
                duration=_duration(self._seconds() - absence.since),
            )

    def forget(self, parent: str) -> None:
        """Nobody waits any more."""
        self._absent.pop(parent, None)
        self._unusable.pop(parent, None)


def _below(parent: str, missing: str) -> str:
    return "" if missing == parent else f", for {missing} is not"


def _told(parent: str, missing: str, duration: str = "") -> str:
    parent_status = f"it has been awaited for {duration}" if duration else "it is awaited"
    return (
        f"parent {parent} is not there{_below(parent, missing)}: {parent_status}, and containers can be started as soon as it "
        "is back"
    )


def _duration(seconds: float) -> str:
    for most, unit, size in ((120, "s", 1), (7200, "min", 60)):
        if seconds < most:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 3600:.0f} h"
