"""The addresses that the host itself has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.python.failure import Failure

from ..addresses import IPAddress
from ..netlink.links import Links


class LocalAddresses:
    """
    Lists the host's addresses, and remembers them until the kernel reports a change.

    While nobody reports changes, each question lists them anew. Questions that are asked at the same time share a list.
    """

    def __init__(self, links: Links) -> None:
        self._links = links
        self._known: Mapping[IPAddress, str] | None = None
        self._is_reporting: Callable[[], bool] = lambda: False
        self._changes = 0
        self._waiting: list[Deferred[Mapping[IPAddress, str]]] = []

    def follow(self, is_reporting: Callable[[], bool]) -> None:
        """
        :param is_reporting: whether :meth:`changed` is called whenever an address of the host is added or removed.
        """
        self._is_reporting = is_reporting

    def changed(self) -> None:
        """An address of the host was added or removed."""
        self._changes += 1
        self._known = None

    async def link_of(self, address: IPAddress) -> str | None:
        """
        :return: the name of the host's link that has *address*; ``None`` if the host does not have it.
        :raises LinkError: the kernel refuses.
        """
        if self._known is None or not self._is_reporting():
            return (await self._listed()).get(address)
        return self._known.get(address)

    async def _listed(self) -> Mapping[IPAddress, str]:
        waiting: Deferred[Mapping[IPAddress, str]] = Deferred()
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            ensureDeferred(self._list())
        return await waiting

    async def _list(self) -> None:
        changes = self._changes
        outcome: Any
        try:
            outcome = await self._links.host_addresses()
            if self._changes == changes:
                self._known = outcome
        except Exception:
            outcome = Failure()
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.called:  # else it was cancelled
                each.callback(outcome)
