"""Which parents are absent or unusable, since when and why. Each change is logged once."""

from __future__ import annotations

import errno
from collections.abc import Callable

from attrs import frozen
from twisted.logger import Logger

from ..errors import LinkError

_log = Logger(namespace="macvlan_twisted.driver")


_START_AGAIN = "start the container again"


class ParentAbsent(LinkError):
    """A parent is not there, since *missing*, which is itself or lies below it, is not."""

    def __init__(self, parent: str, missing: str, message: str = "") -> None:
        super().__init__(message or _reason(parent, missing, _START_AGAIN), errno.ENODEV)
        self.parent = parent
        self.missing = missing


@frozen
class _Absence:
    missing: str
    since: float


class ParentStatus:
    """:param seconds: a clock that is never set."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._absent: dict[str, _Absence] = {}
        self._unusable: dict[str, str] = {}

    def is_in_doubt(self, parent: str) -> bool:
        """Whether something was wrong with it at the last check."""
        return parent in self._absent or parent in self._unusable

    def is_absent(self, parent: str) -> bool:
        return parent in self._absent

    def why_absent(self, parent: str, remedy: str = _START_AGAIN) -> str:
        """
        The error text where *parent* is needed and absent.

        :param remedy: what to do when it is back.
        """
        absence = self._absent.get(parent)
        if absence is None:
            return _reason(parent, parent, remedy)
        return _reason(parent, absence.missing, remedy, _duration(self._seconds() - absence.since))

    def absent(self, absence: ParentAbsent, networks: int) -> None:
        """:param networks: how many wait."""
        parent, before = absence.parent, self._absent.get(absence.parent)
        if before is not None and before.missing == absence.missing:
            return
        since = self._seconds() if before is None else before.since
        self._absent[parent] = _Absence(absence.missing, since)
        self._unusable.pop(parent, None)
        # Cause: the NIC was removed or renamed, or its driver is not loaded yet; for a VLAN, that may be the NIC
        # below it. Remedy: restore it under the same name; nothing else is needed.
        _log.warn(
            "parent {parent}: absent{because}; containers on it can start when it is back (networks: {networks})",
            parent=parent,
            because=_below(parent, absence.missing),
            networks=networks,
        )

    def unusable(self, parent: str, reason: str) -> None:
        """It is there, but some or all containers cannot start on it."""
        self._back(parent)
        if self._unusable.get(parent) != reason:
            self._unusable[parent] = reason
            # Cause: a link with the parent's name exists, but some or all containers cannot start on it. Remedy:
            # see the reason in the line; the parent is checked again when it changes and once a minute.
            _log.error("parent {parent}: present but unusable ({reason})", parent=parent, reason=reason)

    def available(self, parent: str) -> None:
        self._back(parent)
        if self._unusable.pop(parent, None) is not None:
            _log.info("parent {parent}: usable again", parent=parent)

    def _back(self, parent: str) -> None:
        absence = self._absent.pop(parent, None)
        if absence is not None:
            _log.info(
                "parent {parent}: present again after {duration}",
                parent=parent,
                duration=_duration(self._seconds() - absence.since),
            )

    def forget(self, parent: str) -> None:
        """No network uses it any more."""
        self._absent.pop(parent, None)
        self._unusable.pop(parent, None)


def _below(parent: str, missing: str) -> str:
    return "" if missing == parent else f", because {missing} is absent"


def _reason(parent: str, missing: str, remedy: str, duration: str = "") -> str:
    if duration:
        # Remedy: reconnect the NIC, load its driver, or rename it back to PARENT; then start the container, or create the
        # network, again.
        return f"parent {parent} has been absent for {duration}{_below(parent, missing)}: {remedy} when it is back"
    # Remedy: reconnect the NIC, load its driver, or rename it back to PARENT; then start the container, or create the
    # network, again.
    return f"parent {parent} is absent{_below(parent, missing)}: {remedy} when it is back"


def _duration(seconds: float) -> str:
    for most, unit, size in ((120, "s", 1), (7200, "min", 60)):
        if seconds < most:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 3600:.0f} h"
