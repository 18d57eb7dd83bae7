"""``macvlan-twisted fleet leave`` and ``import``, on a state on disk."""

from __future__ import annotations

import os

from attrs import evolve
from twisted.trial.unittest import SkipTest

from macvlan_twisted.commands.stopped_state import stopped_state
from macvlan_twisted.errors import RequestRefused, StartupError
from macvlan_twisted.failpoints import Failpoint, observe
from macvlan_twisted.fleet.interfaces import (
    Claim,
    ClaimState,
    Entry,
    FleetUnavailable,
    Host,
    HostRecord,
    Snapshot,
)
from macvlan_twisted.testing.fleet_claims import FakeClaims

from .fleet_command_cases import BOOT, FleetCommandCase, claim, host, shared

THERE, SILENT = host("there"), host("silent")
USED, RESERVE = "192.168.1.9", "192.168.1.10"


class _LosesChanges(FakeClaims):
    """Answers reads only."""

    async def snapshot(self) -> Snapshot:
        self.loses_replies = False
        found = await super().snapshot()
        self.loses_replies = True
        return found


class StateTests(FleetCommandCase):
    def test_both_commands_need_the_state_and_a_stopped_service(self) -> None:
        for name in ("leave", "import"):
            with self.assertRaises(RequestRefused) as refused:
                self.run_command(name)
            self.assertIn(f"no state in {self.state_dir}", str(refused.exception))
            self.assertFalse(self.state_dir.exists())
        self.make_state()
        with stopped_state(self.config, self.kernel):
            for name in ("leave", "import"):
                with self.assertRaises(StartupError) as running:
                    self.run_command(name)
                self.assertIn("--state-dir", str(running.exception))
        self.assertEqual(self.run_command("import"), 0)

    def test_a_copy_of_the_state_that_runs_elsewhere_refuses_both(self) -> None:
        instance = self.make_state()
        copied = Host("copy", instance)
        self.fill(claim(USED, copied), alive=(copied,))
        before = self.store.revision
        for name in ("leave", "import"):
            with self.assertRaises(RequestRefused) as refused:
                self.run_command(name)
            self.assertIn("host copy is alive", str(refused.exception))
        self.assertEqual(self.store.revision, before)

    def test_root_creates_no_files_of_its_own_in_the_state(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("only root can be somebody else")
        self.make_state(USED)
        self.state_dir.parent.chmod(0o711)
        for path in (
            self.state_dir,
            *self.state_dir.iterdir(),
            self.runtime_dir,
            *self.runtime_dir.iterdir(),
        ):
            os.chown(path, 4711, 4711)
        owners: set[int] = set()

        def look(step: Failpoint, is_done: bool) -> None:
            found = (*self.state_dir.iterdir(), *self.runtime_dir.iterdir())
            owners.update(each.stat().st_uid for each in found)

        self.addCleanup(observe(look))
        self.assertEqual(self.run_command("import"), 0)
        self.assertEqual(self.run_command("leave", "--force"), 0)
        self.assertEqual(owners, {4711})
        self.assertEqual(os.geteuid(), 0)


class LeaveTests(FleetCommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.instance = self.make_state()
        self.here = Host("here", self.instance)
        self.own: tuple[Entry, ...] = (
            claim(USED, self.here),
            claim(RESERVE, self.here, ClaimState.RESERVE),
            shared("192.168.1.1", self.here),
        )
        self.add_rows(*self.own)
        self.fill(
            *self.own[:2],
            shared("192.168.1.1", self.here, THERE),
            claim("192.168.1.11", THERE),
            alive=(THERE,),
            known=(self.here,),
        )

    def left(self) -> set[str]:
        return {str(entry.address) for entry in self.store.entries.values()}

    def test_claims_shares_rows_and_records_go(self) -> None:
        self.store.set_record("here", HostRecord(self.here, "before", BOOT))
        self.assertEqual(self.run_command("leave"), 0)
        self.assertEqual(self.rows(), {})
        self.assertEqual(self.left(), {"192.168.1.1", "192.168.1.11"})
        self.assertEqual(self.entry("192.168.1.1"), shared("192.168.1.1", THERE))
        self.assertEqual((set(self.store.known), set(self.store.alive)), ({"there"}, {"there"}))
        self.assertSaid("has left the fleet", "without --fleet")

    def test_claims_without_rows_and_of_an_earlier_name_go_too(self) -> None:
        before = Host("earlier", self.instance)
        self.fill(claim("192.168.1.20", before), shared("192.168.1.2", before, THERE), known=(before,))
        self.assertEqual(self.run_command("leave"), 0)
        self.assertEqual(self.left(), {"192.168.1.1", "192.168.1.2", "192.168.1.11"})
        self.assertEqual(set(self.store.known), {"there"})

    def test_another_host_of_the_same_name_stays(self) -> None:
        other = Host("here", "other")
        self.fill(claim("192.168.1.20", other), alive=(other,))
        self.assertEqual(self.run_command("leave"), 0)
        self.assertEqual(self.left(), {"192.168.1.1", "192.168.1.11", "192.168.1.20"})
        self.assertIn("here", self.store.alive)

    def test_addresses_in_use_refuse_unless_forced(self) -> None:
        self.make_state(USED)
        with self.assertRaises(RequestRefused) as refused:
            self.run_command("leave")
        self.assertIn(f"in use on this host: {USED}; remove these containers", str(refused.exception))
        self.assertIn(USED, self.left())
        self.assertEqual(self.run_command("leave", "--force"), 0)
        self.assertNotIn(USED, self.left())

    def test_a_dry_run_changes_nothing(self) -> None:
        before, rows = self.store.revision, self.rows()
        self.assertEqual(self.run_command("leave", "--dry-run"), 0)
        self.assertSaid(f"would be released: address {USED}")
        self.assertEqual((self.store.revision, self.rows()), (before, rows))

    def test_an_interrupted_leave_can_be_run_again(self) -> None:
        self.claims = _LosesChanges(self.store)
        with self.assertRaises(FleetUnavailable):
            self.run_command("leave")
        self.assertIn("leaving", self.rows().values())
        self.claims = FakeClaims(self.store)
        self.assertEqual(self.run_command("leave"), 0)
        self.assertEqual((self.rows(), self.left()), ({}, {"192.168.1.1", "192.168.1.11"}))


class ImportTests(FleetCommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.here = Host("here", self.make_state(USED, RESERVE))

    def test_free_addresses_are_claimed_with_rows(self) -> None:
        self.assertEqual(self.run_command("import"), 0)
        for address in (USED, RESERVE):
            entry = self.entry(address)
            assert isinstance(entry, Claim)
            self.assertEqual((entry.owner, entry.state), (self.here, ClaimState.USED))
            self.assertSaid(f"address {address} of LAN default: is free in the fleet")
        self.assertEqual(self.entry("192.168.1.1"), shared("192.168.1.1", self.here))
        self.assertEqual(self.rows(), dict.fromkeys((USED, RESERVE, "192.168.1.1"), "owned"))
        self.assertEqual(self.store.known["here"], self.here)
        self.assertSaid("claimed: 3 addresses")

    def test_a_second_import_changes_no_claim(self) -> None:
        self.run_command("import")
        before = dict(self.store.entries)
        self.assertEqual(self.run_command("import"), 0)
        self.assertSaid(f"address {USED}", "belongs to this host already")
        self.assertEqual(self.store.entries, before)

    def test_the_gateway_is_shared_with_other_hosts(self) -> None:
        self.fill(shared("192.168.1.1", THERE), alive=(THERE,))
        self.assertEqual(self.run_command("import"), 0)
        self.assertSaid("address 192.168.1.1", "is shared by", "there")
        self.assertEqual(self.entry("192.168.1.1"), shared("192.168.1.1", THERE, self.here))

    def test_a_conflict_changes_nothing(self) -> None:
        for entry in (
            claim(USED, THERE, container="web"),
            shared(USED, THERE),
            claim(USED, SILENT, ClaimState.RESERVE),
            claim("192.168.1.1", THERE, ClaimState.RESERVE),
        ):
            self.store.entries.clear()
            self.said.clear()
            self.fill(entry, alive=(THERE,), known=(SILENT,))
            before = self.store.revision
            self.assertEqual(self.run_command("import"), 1, entry)
            self.assertSaid(f"address {entry.address}", "conflict")
            self.assertSaid("nothing was claimed", "fleet forget")
            self.assertEqual((self.store.revision, self.rows()), (before, {}))

    def test_a_dry_run_changes_nothing(self) -> None:
        before = self.store.revision
        self.assertEqual(self.run_command("import", "--dry-run"), 0)
        self.assertSaid(f"address {USED}", "is free in the fleet")
        self.assertEqual((self.store.revision, self.rows()), (before, {}))

    def test_a_host_that_does_not_use_an_address_hands_it_over(self) -> None:
        theirs = claim(USED, THERE, ClaimState.RESTING)
        self.fill(theirs, alive=(THERE,))

        def hand_over() -> None:
            for key, wanted in list(self.store.wanted.items()):
                self.store.set_entry(key, evolve(theirs, owner=wanted.host, claim_id=wanted.claim_id))

        self.assertEqual(self.run_command("import", meanwhile=hand_over), 0)
        entry = self.entry(USED)
        assert isinstance(entry, Claim)
        self.assertEqual((entry.owner, entry.state), (self.here, ClaimState.USED))
        self.assertEqual((self.store.wanted, self.rows()[USED]), ({}, "owned"))

    def test_a_host_that_does_not_answer_keeps_the_address(self) -> None:
        self.fill(claim(USED, THERE, ClaimState.RESTING), alive=(THERE,))
        self.assertEqual(self.run_command("import"), 1)
        self.assertSaid(f"not claimed: address {USED}")
        self.assertSaid("claimed: 2 addresses")
        self.assertEqual((self.store.wanted, USED in self.rows()), ({}, False))

    def test_own_claims_without_rows_are_taken_over(self) -> None:
        """As after ``--recover``, or under another ``--fleet-host``."""
        for name in ("here", "earlier"):
            self.store.entries.clear()
            own = claim(USED, Host(name, self.here.instance), container="web", mac="7a:00:00:00:00:05")
            self.fill(own)
            self.assertEqual(self.run_command("import"), 0)
            self.assertEqual(self.entry(USED), evolve(own, owner=self.here))
            self.assertEqual(self.rows()[USED], "owned")

    def test_another_host_of_the_same_name_refuses(self) -> None:
        self.fill(alive=(Host("here", "other"),))
        with self.assertRaises(RequestRefused) as refused:
            self.run_command("import")
        self.assertIn("another --fleet-host", str(refused.exception))


class EmptyImportTests(FleetCommandCase):
    def test_there_is_nothing_to_claim(self) -> None:
        self.commit()
        self.assertEqual(self.run_command("import"), 0)
        self.assertEqual((self.said, self.store.known), (["there is nothing to claim"], {}))

    def test_addresses_of_a_dhcp_server_take_no_part(self) -> None:
        self.make_state(USED, dhcp="true", parent="eth0")
        self.assertEqual(self.run_command("import"), 0)
        self.assertEqual((self.said, self.store.entries), (["there is nothing to claim"], {}))

    def test_the_lan_of_the_pool_counts(self) -> None:
        self.make_state(USED, lan="lab")
        self.fill(claim(USED, THERE), alive=(THERE,))
        self.assertEqual(self.run_command("import"), 0)
        self.assertIsInstance(self.entry(USED, "lab"), Claim)
