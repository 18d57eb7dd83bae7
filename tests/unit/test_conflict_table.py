"""For how long an address of another host is left alone, whatever happens to the time of day."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import parse_address
from macvlan_twisted.lan.conflict_table import RETRY_SECONDS, ConflictTable
from macvlan_twisted.state.interfaces import RecordKind

from .held_steps import ScriptedRecords

ADDRESS = parse_address("10.0.0.1")
OTHER, ANOTHER = "02:00:00:00:00:01", "02:00:00:00:00:02"
STEPS = (-864000.0, -3600.0, 3600.0, 864000.0)


class ConflictTableTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.records = ScriptedRecords()
        self.wall = 1.0e9
        self.begin()

    def begin(self) -> None:
        """A life of the service."""
        self.clock = Clock()
        self.table = ConflictTable(self.records, self.clock, lambda: self.wall)
        self.table.load()

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.wall += seconds

    def assert_rests(self, seconds: float) -> None:
        """It rests for so long from now on, and no longer."""
        self.pass_time(seconds - 1)
        self.assertFalse(self.table.may_retry("eth0", ADDRESS))
        self.assertEqual(self.table.quarantined("eth0"), [ADDRESS])
        self.pass_time(1)
        self.assertTrue(self.table.may_retry("eth0", ADDRESS))
        self.assertEqual(self.table.quarantined("eth0"), [])

    def test_address_rests_for_a_minute(self) -> None:
        for step in (0.0, *STEPS):
            self.table.have("eth0", ADDRESS, OTHER, "answers")
            self.wall += step
            self.assert_rests(RETRY_SECONDS)

    def test_address_rests_for_the_rest_of_the_minute_after_a_restart(self) -> None:
        for step in (0.0, *STEPS):
            self.table.forget("eth0", ADDRESS)
            self.table.have("eth0", ADDRESS, OTHER, "answers")
            self.pass_time(20)
            self.begin()
            self.wall += step
            self.assert_rests(RETRY_SECONDS - 20)

    def test_address_rests_no_longer_if_its_age_is_unknown(self) -> None:
        for step in STEPS:
            self.table.forget("eth0", ADDRESS)
            self.table.have("eth0", ADDRESS, OTHER, "answers")
            self.wall += step
            self.begin()
            self.assertTrue(self.table.may_retry("eth0", ADDRESS))

    def test_changing_mac_is_saved_once_a_minute(self) -> None:
        for step in (0.0, *STEPS):
            self.table.forget("eth0", ADDRESS)
            self.table.have("eth0", ADDRESS, OTHER, "answers")
            self.wall += step
            self.pass_time(RETRY_SECONDS - 1)
            self.table.have("eth0", ADDRESS, ANOTHER, "answers")
            self.assertEqual(self.saved_mac(), OTHER)
            self.pass_time(1)
            self.table.have("eth0", ADDRESS, ANOTHER, "answers")
            self.assertEqual(self.saved_mac(), ANOTHER)

    def saved_mac(self) -> object:
        (row,) = self.records.rows[RecordKind.CONFLICT].values()
        return row["mac"]
