"""States that earlier revisions wrote: they open, mean what they meant, and the format changes only with its version."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from attrs import NOTHING, fields
from cattrs import Converter
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.dhcp.binding import Binding
from macvlan_twisted.dhcp.store import LeaseRecord
from macvlan_twisted.driver.models import Endpoint, MadeLink, Network, Subnet, VlanStep
from macvlan_twisted.errors import NewerStateError, StateError
from macvlan_twisted.failpoints import Failpoint, observe
from macvlan_twisted.fleet.rows import ClaimRow, SeenStore
from macvlan_twisted.ipam.pool import Pool
from macvlan_twisted.lan.conflict_table import Conflict
from macvlan_twisted.lan.host_link import HostLink
from macvlan_twisted.recovery.snapshot import Snapshot
from macvlan_twisted.state.damage import DamageRecovery, is_damage
from macvlan_twisted.state.database import CONFLICTS, DATABASE_NAME
from macvlan_twisted.state.generation import RuntimeGeneration
from macvlan_twisted.state.migrations import VERSION
from macvlan_twisted.state.serialize import STORED_NAMES, from_document
from macvlan_twisted.state.sqlite import open_database
from tests.states import HERE, NAMES, contents, dump, restore

from .helpers import fresh_directory

STORED = (
    Binding,
    ClaimRow,
    Conflict,
    Endpoint,
    HostLink,
    LeaseRecord,
    MadeLink,
    Network,
    Pool,
    SeenStore,
    Subnet,
    VlanStep,
)


def described(kind: type) -> dict[str, Any]:
    """The fields of a stored class as they are called on disk, each with its default."""

    def default(value: Any) -> Any:
        if value is NOTHING:
            return "(none)"
        return Converter().unstructure(value.factory() if hasattr(value, "factory") else value)

    return {STORED_NAMES.get(each.name, each.name): default(each.default) for each in fields(kind)}


class StoredStateTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        place = fresh_directory(self)
        self.directory = place / "state"
        self.outside = RuntimeGeneration(place / "run", self.directory)

    def restored(self, name: str) -> None:
        for path in self.directory.glob("*"):
            path.unlink()
        restore(name, self.directory)

    def snapshot(self) -> Snapshot:
        with closing(open_database(self.directory)) as database:
            for _, text in database.rows(CONFLICTS):
                from_document(Conflict, json.loads(text))
            return Snapshot.of(database)

    def on_disk(self) -> dict[str, dict[str, dict[str, Any]]]:
        """The documents by table and key."""
        with closing(sqlite3.connect(self.directory / DATABASE_NAME)) as database:
            found = database.execute("SELECT name FROM sqlite_master WHERE sql LIKE '%document%'").fetchall()
            return {
                table: {
                    key: json.loads(text)
                    for key, text in database.execute(f"SELECT id, document FROM {table}")
                }
                for (table,) in found
            }


class StoredStateTests(StoredStateTestCase):
    def test_every_format_there_has_been_is_opened(self) -> None:
        for name in NAMES:
            with self.subTest(state=name):
                self.restored(name)
                snapshot, expected = self.snapshot(), contents(name)
                self.assertEqual({*snapshot.networks}, {each["id"] for each in expected["networks"]})
                self.assertEqual({*snapshot.endpoints}, {each["id"] for each in expected["endpoints"]})
                for each in expected["endpoints"]:
                    address = ip_address(each["address"].partition("/")[0]) if each["address"] else None
                    endpoint = snapshot.endpoints[each["id"]]
                    if address is not None:
                        self.assertIn(address, endpoint.addresses)
                    if each["pool"]:
                        self.assertIn((each["pool"], address), snapshot.allocations)

    def test_addresses_are_ours_where_a_pool_of_ours_is(self) -> None:
        for name in NAMES:
            with self.subTest(state=name):
                self.restored(name)
                networks = self.snapshot().networks
                for each in contents(name)["networks"]:
                    for subnet in networks[each["id"]].subnets:
                        self.assertEqual(subnet.managed_here, bool(each["pool"]), subnet)
                        self.assertEqual(subnet.null_ipam, not each["pool"] and not each["address"], subnet)

    def test_pools_whose_parent_the_user_named_are_known(self) -> None:
        for name in NAMES:
            with self.subTest(state=name):
                self.restored(name)
                for pool_id, pool in self.snapshot().pools.items():
                    self.assertEqual(pool.parent_named, "parent=eth2" in pool_id)
                    self.assertEqual(pool.is_global, pool_id.startswith("MacvlanTwistedGlobal"))

    def test_an_upgrade_adds_and_changes_nothing_else(self) -> None:
        for name in NAMES:
            with self.subTest(state=name):
                self.restored(name)
                before = self.on_disk()
                open_database(self.directory).close()
                after = self.on_disk()
                for table, documents in before.items():
                    self.assertEqual({*documents}, {*after[table]})
                    for key, document in documents.items():
                        kept = {field: after[table][key][field] for field in document if field != "subnets"}
                        changed = {field for field in kept if kept[field] != document[field]}
                        self.assertLessEqual(changed, {"conflict_detection"} if "Global" in key else set())

    def test_second_start_finds_the_current_version(self) -> None:
        for name in NAMES:
            with self.subTest(state=name):
                self.restored(name)
                open_database(self.directory).close()
                upgraded = dump(self.directory)
                self.assertIn(f"PRAGMA user_version = {VERSION};", upgraded)
                open_database(self.directory).close()
                self.assertEqual(dump(self.directory), upgraded)

    def test_upgrade_that_was_killed_is_repeated(self) -> None:
        """Copies of the files, before and after each failpoint, are what a kill leaves."""
        self.restored(NAMES[0])
        upgraded, copies = self.directory, list[Path]()

        def copy(step: Failpoint, is_done: bool) -> None:
            copies.append(upgraded.with_name(str(len(copies))))
            shutil.copytree(upgraded, copies[-1])

        stop = observe(copy)
        self.addCleanup(stop)
        open_database(self.directory).close()
        stop()
        expected = self.on_disk()
        self.assertGreater(len(copies), 10)
        for self.directory in copies:
            open_database(self.directory).close()
            self.assertEqual(self.on_disk(), expected)

    def test_older_copy_is_refused_before_it_is_upgraded(self) -> None:
        name = NAMES[0]
        self.restored(name)
        open_database(self.directory, self.outside).close()
        with closing(open_database(self.directory, self.outside)) as database:
            database.commit([])
        self.restored(name)
        before = dump(self.directory)
        for _ in range(3):
            with self.assertRaisesRegex(StateError, "an older copy was restored"):
                open_database(self.directory, self.outside)
        self.assertEqual(dump(self.directory), before)


class NewerStateTests(StoredStateTestCase):
    def setUp(self) -> None:
        super().setUp()
        open_database(self.directory_made(), self.outside).close()
        with closing(sqlite3.connect(self.directory / DATABASE_NAME)) as database:
            database.execute(f"PRAGMA user_version = {VERSION + 1}")
        (self.directory / "generation").write_bytes(b"a later format of this file")
        self.before = dump(self.directory)

    def directory_made(self) -> Path:
        self.directory.mkdir(mode=0o700)
        return self.directory

    def test_it_is_refused_as_newer_and_unchanged(self) -> None:
        with self.assertRaisesRegex(NewerStateError, f"version {VERSION + 1}.*install the newer") as caught:
            open_database(self.directory, self.outside)
        self.assertFalse(is_damage(caught.exception))
        self.assertEqual(dump(self.directory), self.before)

    def test_recover_does_not_rebuild_it(self) -> None:
        with DamageRecovery(self.directory, self.outside) as recovering, self.assertRaises(NewerStateError):
            recovering.opened(Snapshot.of)
        self.assertEqual(dump(self.directory), self.before)


class FormatTests(SynchronousTestCase):
    def test_stored_fields_are_those_of_the_current_version(self) -> None:
        """Who changes a field raises the version, and says what old rows mean: docs/hacking, "Change the format on disk"."""
        written = json.loads((HERE / "fields.json").read_text(encoding="utf-8"))
        self.assertEqual(written["version"], VERSION, "write the fields of the new version into fields.json")
        self.assertEqual(
            written["fields"],
            {kind.__name__: described(kind) for kind in STORED},
            "the format changes: raise its version by a migration, then write these into fields.json",
        )

    def test_there_is_a_state_of_every_former_version(self) -> None:
        versions = {
            int((HERE / name / "state.sql").read_text().rpartition("user_version = ")[2].rstrip(";\n"))
            for name in NAMES
        }
        self.assertGreaterEqual(versions, set(range(1, VERSION)), "add one: tests/states/README.rst")
