"""State in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from twisted.internet.defer import Deferred, fail, succeed

from ..addresses import IPAddress
from ..errors import StateError
from ..state.interfaces import (
    Allocation,
    Document,
    LastAddress,
    RecordKind,
    ReturnedAddress,
    StickyAddress,
)


class _Failing:
    """A store whose writes fail while ``failing`` is set."""

    failing = False

    def _done(self) -> Deferred[None]:
        if self.failing:
            return fail(StateError("writing: the disk is full (a test said so)"))
        return succeed(None)


class MemoryHostRecords(_Failing):
    """:class:`~macvlan_twisted.state.interfaces.HostRecords` without a disk."""

    def __init__(self, instance: str = "0123abcd", link_group: int = 70000) -> None:
        self.instance = instance
        self.link_group = link_group
        self.rows: defaultdict[RecordKind, dict[str, Document]] = defaultdict(dict)

    def documents(self, kind: RecordKind) -> dict[str, Document]:
        return dict(self.rows[kind])

    def save(self, kind: RecordKind, key: str, document: Document) -> Deferred[None]:
        if not self.failing:
            self.rows[kind][key] = document
        return self._done()

    def erase(self, kind: RecordKind, key: str) -> Deferred[None]:
        if not self.failing:
            self.rows[kind].pop(key, None)
        return self._done()


class MemoryAddressStore(_Failing):
    """:class:`~macvlan_twisted.state.interfaces.AddressStore` without a disk."""

    def __init__(self) -> None:
        self.open: dict[str, Document] = {}
        self.allocated: dict[tuple[str, IPAddress], Allocation] = {}
        self.last: dict[str, IPAddress] = {}
        self.names: dict[tuple[str, str], StickyAddress] = {}
        self.came_back: dict[tuple[str, IPAddress], ReturnedAddress] = {}
        self.of_containers: dict[tuple[str, str], LastAddress] = {}

    def pools(self) -> dict[str, Document]:
        return dict(self.open)

    def allocations(self) -> list[Allocation]:
        return list(self.allocated.values())

    def cursors(self) -> dict[str, IPAddress]:
        return dict(self.last)

    def save_pool(self, pool_id: str, document: Document) -> Deferred[None]:
        if not self.failing:
            self.open[pool_id] = document
        return self._done()

    def erase_pool(self, pool_id: str) -> Deferred[None]:
        if not self.failing:
            self.open.pop(pool_id, None)
            for key in [key for key in self.allocated if key[0] == pool_id]:
                del self.allocated[key]
            for each in [each for each in self.names if each[0] == pool_id]:
                del self.names[each]
            for key in [key for key in self.came_back if key[0] == pool_id]:
                del self.came_back[key]
            for each in [each for each in self.of_containers if each[0] == pool_id]:
                del self.of_containers[each]
        return self._done()

    def identities(self) -> list[StickyAddress]:
        return list(self.names.values())

    def last_addresses(self) -> list[LastAddress]:
        return list(self.of_containers.values())

    def save_last_addresses(
        self, saved: Sequence[LastAddress], forgotten: Sequence[tuple[str, str]]
    ) -> Deferred[None]:
        if not self.failing:
            for key in forgotten:
                self.of_containers.pop(key, None)
            for row in saved:
                self.of_containers[row.pool_id, row.container_id] = row
        return self._done()

    def returned(self) -> list[ReturnedAddress]:
        return list(self.came_back.values())

    def save_allocation(
        self,
        allocation: Allocation,
        shared_set: str,
        advances: bool,
        forgotten_names: Sequence[str] = (),
        forgotten_sets: Sequence[str] = (),
        forgotten_returns: Sequence[IPAddress] = (),
    ) -> Deferred[None]:
        if not self.failing:
            for name in forgotten_names:
                self.names.pop((allocation.pool_id, name), None)
            if allocation.name:
                sticky = StickyAddress(
                    allocation.pool_id, allocation.name, allocation.address, allocation.mac
                )
                self.names[allocation.pool_id, allocation.name] = sticky
            self.allocated[allocation.pool_id, allocation.address] = allocation
            if advances:
                self.last[shared_set] = allocation.address
            for each in forgotten_sets:
                self.last.pop(each, None)
            for address in forgotten_returns:
                self.came_back.pop((allocation.pool_id, address), None)
        return self._done()

    def erase_allocation(
        self,
        pool_id: str,
        address: IPAddress,
        returned: ReturnedAddress | None = None,
        forgotten_returns: Sequence[IPAddress] = (),
    ) -> Deferred[None]:
        if not self.failing:
            self.allocated.pop((pool_id, address), None)
            for each in forgotten_returns:
                self.came_back.pop((pool_id, each), None)
            if returned is not None:
                self.came_back[pool_id, address] = returned
        return self._done()
