"""One contract for what survives: in memory and on disk."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import parse_address, parse_interface
from macvlan_twisted.directories import prepare_directory
from macvlan_twisted.driver.network import Endpoint, MadeLink, Network, VlanStep
from macvlan_twisted.errors import StateFailed
from macvlan_twisted.records import from_document, to_document
from macvlan_twisted.state.interface import AddressBook, Claim, HostRecords, Kind
from macvlan_twisted.state.sqlite import (
    SqliteAddressBook,
    SqliteHostRecords,
    open_ledger,
)
from macvlan_twisted.state.writer import Writer
from macvlan_twisted.testing.state import MemoryAddressBook, MemoryHostRecords

from .helpers import subnet
from .ledger_cases import LedgerTestCase

ONE, TWO = parse_address("10.0.0.1"), parse_address("fd00::2")


class MemoryStateTests(LedgerTestCase):
    """The contract on the fakes."""

    def setUp(self) -> None:
        super().setUp()
        self.records: HostRecords = MemoryHostRecords()
        self.book: AddressBook = MemoryAddressBook()

    def next_life(self) -> None:
        """What a restart does: everything anew on what survives."""

    def test_documents_are_kept_by_kind_and_key(self) -> None:
        for kind in Kind:
            self.successResultOf(self.records.save(kind, "a", {"kind": kind.value, "n": [1, None]}))
            self.successResultOf(self.records.save(kind, "b", {}))
            self.successResultOf(self.records.save(kind, "b", {"new": True}))
        self.successResultOf(self.records.forget(Kind.NETWORK, "a"))
        self.successResultOf(self.records.forget(Kind.NETWORK, "a"))
        self.next_life()
        self.assertEqual(self.records.documents(Kind.NETWORK), {"b": {"new": True}})
        self.assertEqual(
            self.records.documents(Kind.ENDPOINT),
            {"a": {"kind": "endpoints", "n": [1, None]}, "b": {"new": True}},
        )

    def test_identity_stays(self) -> None:
        before = self.records.instance, self.records.link_group
        self.next_life()
        self.assertEqual((self.records.instance, self.records.link_group), before)
        self.assertGreater(self.records.link_group, 0)
        self.assertLess(self.records.link_group + 32, 2**31)

    def test_claims_belong_to_pools(self) -> None:
        for pool in ("p", "q"):
            self.successResultOf(self.book.open_pool(pool, {"pool": pool}))
        claims = [Claim("p", ONE, "endpoint"), Claim("p", TWO, "gateway"), Claim("q", ONE, "gateway")]
        for claim in claims:
            self.successResultOf(self.book.claim(claim, "set", advances=False))
        self.next_life()
        self.assertEqual(set(self.book.claims()), set(claims))
        self.successResultOf(self.book.release("p", ONE))
        self.successResultOf(self.book.release("p", ONE))
        self.assertEqual(self.lived(), {("p", TWO), ("q", ONE)})
        self.successResultOf(self.book.close_pool("p"))
        self.successResultOf(self.book.close_pool("p"))
        self.assertEqual(self.lived(), {("q", ONE)})
        self.assertEqual(self.book.pools(), {"q": {"pool": "q"}})

    def lived(self) -> set[tuple[str, object]]:
        self.next_life()
        return {(claim.pool_id, claim.address) for claim in self.book.claims()}

    def test_only_a_claim_that_advances_moves_the_cursor(self) -> None:
        self.successResultOf(self.book.claim(Claim("p", ONE, "endpoint"), "set 1", advances=True))
        self.successResultOf(self.book.claim(Claim("p", TWO, "endpoint"), "set 1", advances=False))
        self.successResultOf(self.book.claim(Claim("p", TWO, "endpoint"), "set 2", advances=True))
        self.next_life()
        self.assertEqual(self.book.cursors(), {"set 1": ONE, "set 2": TWO})
        claim = Claim("p", TWO, "endpoint")
        self.successResultOf(self.book.claim(claim, "set 3", advances=True, forgotten_sets=("set 1", "none")))
        self.next_life()
        self.assertEqual(self.book.cursors(), {"set 2": TWO, "set 3": TWO})


class SqliteStateTests(MemoryStateTests):
    """The same on a real file."""

    def setUp(self) -> None:
        super().setUp()
        self.open_all()

    def open_all(self) -> None:
        prepare_directory(self.directory)
        ledger = open_ledger(self.directory)
        self.addCleanup(ledger.close)
        self.writer = Writer(ledger, lambda call, *rest: call(*rest))
        self.records = SqliteHostRecords(ledger, self.writer)
        self.book = SqliteAddressBook(ledger, self.writer)

    def next_life(self) -> None:
        self.writer.close()
        self.open_all()

    def test_the_directory_is_for_our_eyes_only(self) -> None:
        self.directory.chmod(0o755)
        self.next_life()
        self.assertEqual(self.directory.stat().st_mode & 0o777, 0o700)

    def test_two_directories_have_identities_of_their_own(self) -> None:
        before = self.records.instance
        self.directory = self.make_directory()
        self.open_all()
        self.assertNotEqual(self.records.instance, before)


NETWORK_VALUE = Network(
    "n",
    "eth0.20",
    "source",
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
            Network("n", "eth0", "bridge"),
            ENDPOINT_VALUE,
            evolve(ENDPOINT_VALUE, address=None, address_v6=None, mac="02:00:00:00:00:01", mac_is_ours=True),
            MadeLink("eth0.20", "vlan", "eth0", 20),
        ):
            self.assertEqual(from_document(type(value), to_document(value)), value)

    def test_a_document_of_an_earlier_release_lacks_members_that_have_defaults(self) -> None:
        self.assertEqual(
            from_document(Network, {"network_id": "n", "parent": "eth0", "mode": "bridge"}),
            Network("n", "eth0", "bridge"),
        )

    def test_a_document_of_something_else_is_told(self) -> None:
        for document in ({}, {"network_id": "n"}, {**to_document(NETWORK_VALUE), "subnets": [{"pool": "x"}]}):
            with self.assertRaises(StateFailed) as caught:
                from_document(Network, document)
            self.assertIn("Network", str(caught.exception))
