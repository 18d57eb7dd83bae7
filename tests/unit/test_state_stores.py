"""The contract of the state stores, in memory and on disk."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import parse_address, parse_interface
from macvlan_twisted.driver.models import Endpoint, MadeLink, Network, VlanStep
from macvlan_twisted.errors import StateError
from macvlan_twisted.option_values import MacvlanMode
from macvlan_twisted.state.directory import prepare_directory
from macvlan_twisted.state.group_commit import GroupCommit
from macvlan_twisted.state.interfaces import (
    AddressStore,
    Allocation,
    HostRecords,
    RecordKind,
    ReturnedAddress,
)
from macvlan_twisted.state.serialize import from_document, to_document
from macvlan_twisted.state.sqlite import SqliteAddressStore, SqliteHostRecords, identity_of, open_database
from macvlan_twisted.testing.state import MemoryAddressStore, MemoryHostRecords
from macvlan_twisted.worker_threads import WorkerThreads

from .database_cases import LedgerTestCase
from .helpers import subnet

ONE, TWO = parse_address("10.0.0.1"), parse_address("fd00::2")


class MemoryStateTests(LedgerTestCase):
    """The contract on the fakes."""

    def setUp(self) -> None:
        super().setUp()
        self.records: HostRecords = MemoryHostRecords()
        self.store: AddressStore = MemoryAddressStore()

    def next_life(self) -> None:
        """A restart: new objects on the same state."""

    def test_documents_are_stored_by_kind_and_key(self) -> None:
        for kind in RecordKind:
            self.successResultOf(self.records.save(kind, "a", {"kind": kind.value, "n": [1, None]}))
            self.successResultOf(self.records.save(kind, "b", {}))
            self.successResultOf(self.records.save(kind, "b", {"new": True}))
        self.successResultOf(self.records.erase(RecordKind.NETWORK, "a"))
        self.successResultOf(self.records.erase(RecordKind.NETWORK, "a"))
        self.next_life()
        self.assertEqual(self.records.documents(RecordKind.NETWORK), {"b": {"new": True}})
        self.assertEqual(
            self.records.documents(RecordKind.ENDPOINT),
            {"a": {"kind": "endpoints", "n": [1, None]}, "b": {"new": True}},
        )

    def test_identity_is_stable(self) -> None:
        before = self.records.instance, self.records.link_group
        self.next_life()
        self.assertEqual((self.records.instance, self.records.link_group), before)
        self.assertGreater(self.records.link_group, 0)
        self.assertLess(self.records.link_group + 32, 2**31)

    def test_allocations_belong_to_pools(self) -> None:
        for pool in ("p", "q"):
            self.successResultOf(self.store.save_pool(pool, {"pool": pool}))
        allocations = [
            Allocation("p", ONE, "endpoint"),
            Allocation("p", TWO, "gateway"),
            Allocation("q", ONE, "gateway"),
        ]
        for allocation in allocations:
            self.successResultOf(self.store.save_allocation(allocation, "set", advances=False))
        self.next_life()
        self.assertEqual(set(self.store.allocations()), set(allocations))
        self.successResultOf(self.store.erase_allocation("p", ONE))
        self.successResultOf(self.store.erase_allocation("p", ONE))
        self.assertEqual(self.lived(), {("p", TWO), ("q", ONE)})
        self.successResultOf(self.store.erase_pool("p"))
        self.successResultOf(self.store.erase_pool("p"))
        self.assertEqual(self.lived(), {("q", ONE)})
        self.assertEqual(self.store.pools(), {"q": {"pool": "q"}})

    def lived(self) -> set[tuple[str, object]]:
        self.next_life()
        return {(allocation.pool_id, allocation.address) for allocation in self.store.allocations()}

    def test_chosen_and_returned_addresses_are_stored(self) -> None:
        allocation = Allocation("p", ONE, "endpoint", is_chosen=True)
        self.successResultOf(self.store.save_allocation(allocation, "set", advances=False))
        self.next_life()
        self.assertEqual(list(self.store.allocations()), [allocation])
        returned = [ReturnedAddress("p", ONE, 1e9 + 0.25), ReturnedAddress("p", TWO, 1e9)]
        self.successResultOf(self.store.erase_allocation("p", ONE, returned[0]))
        self.successResultOf(self.store.erase_allocation("p", TWO, returned[1]))
        self.next_life()
        self.assertEqual(self.store.returned(), returned)
        self.successResultOf(self.store.erase_allocation("p", ONE, returned[0], [ONE, TWO]))
        self.next_life()
        self.assertEqual(self.store.returned(), returned[:1])
        other = Allocation("p", TWO, "endpoint")
        self.successResultOf(self.store.save_allocation(other, "set", False, forgotten_returns=[ONE]))
        self.next_life()
        self.assertEqual(self.store.returned(), [])
        self.successResultOf(self.store.erase_allocation("p", TWO, returned[1]))
        self.successResultOf(self.store.erase_pool("p"))
        self.next_life()
        self.assertEqual(self.store.returned(), [])

    def test_only_an_advancing_allocation_moves_the_cursor(self) -> None:
        self.successResultOf(
            self.store.save_allocation(Allocation("p", ONE, "endpoint"), "set 1", advances=True)
        )
        self.successResultOf(
            self.store.save_allocation(Allocation("p", TWO, "endpoint"), "set 1", advances=False)
        )
        self.successResultOf(
            self.store.save_allocation(Allocation("p", TWO, "endpoint"), "set 2", advances=True)
        )
        self.next_life()
        self.assertEqual(self.store.cursors(), {"set 1": ONE, "set 2": TWO})
        allocation = Allocation("p", TWO, "endpoint")
        self.successResultOf(
            self.store.save_allocation(allocation, "set 3", advances=True, forgotten_sets=("set 1", "none"))
        )
        self.next_life()
        self.assertEqual(self.store.cursors(), {"set 2": TWO, "set 3": TWO})


class SqliteStateTests(MemoryStateTests):
    """The contract on a real file."""

    def setUp(self) -> None:
        super().setUp()
        self.open_all()

    def open_all(self) -> None:
        prepare_directory(self.directory)
        database = open_database(self.directory)
        self.addCleanup(database.close)
        self.writer = GroupCommit(database, WorkerThreads(None, 1, "state"))
        self.records = SqliteHostRecords(database, self.writer, identity_of(database))
        self.store = SqliteAddressStore(database, self.writer)

    def next_life(self) -> None:
        self.writer.close()
        self.open_all()

    def test_directory_is_private(self) -> None:
        self.directory.chmod(0o755)
        self.next_life()
        self.assertEqual(self.directory.stat().st_mode & 0o777, 0o700)

    def test_each_directory_has_its_own_identity(self) -> None:
        before = self.records.instance
        self.directory = self.make_directory()
        self.open_all()
        self.assertNotEqual(self.records.instance, before)


NETWORK_VALUE = Network(
    "n",
    "eth0.20",
    MacvlanMode.SOURCE,
    (subnet("10.0.0.0/8", "10.0.0.1", router="10.0.0.2"), subnet("fd00::/64")),
    mtu=1400,
    vlan_steps=(VlanStep("eth0.20", "eth0", 20),),
    source_macs=("02:00:00:00:00:01",),
)
ENDPOINT_VALUE = Endpoint(
    "e", "n", "mvt", "eth0", None, False, parse_interface("10.0.0.7/8"), parse_interface("fd00::7/64")
)


class RecordTests(SynchronousTestCase):
    def test_values_survive_as_documents(self) -> None:
        for value in (
            NETWORK_VALUE,
            Network("n", "eth0", MacvlanMode.BRIDGE),
            ENDPOINT_VALUE,
            evolve(
                ENDPOINT_VALUE, address=None, address_v6=None, mac="02:00:00:00:00:01", mac_generated=True
            ),
            MadeLink("eth0.20", "vlan", "eth0", 20),
        ):
            self.assertEqual(from_document(type(value), to_document(value)), value)

    def test_old_document_without_new_fields_is_read(self) -> None:
        self.assertEqual(
            from_document(Network, {"network_id": "n", "parent": "eth0", "mode": "bridge"}),
            Network("n", "eth0", MacvlanMode.BRIDGE),
        )

    def test_document_of_another_kind_is_refused(self) -> None:
        for document in ({}, {"network_id": "n"}, {**to_document(NETWORK_VALUE), "subnets": [{"pool": "x"}]}):
            with self.assertRaises(StateError) as caught:
                from_document(Network, document)
            self.assertIn("Network", str(caught.exception))
