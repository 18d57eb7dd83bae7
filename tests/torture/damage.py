"""State is damaged in every way that a disk, a restored backup or a person can do it: refused, or without effect.

Of a state directory that a killed process left (part of it in the write-ahead log) and one that was closed, files are
removed, cut, changed in single bits and whole sectors, and mixed with those of an older copy and of another directory.
Whatever opens afterwards must hold exactly what was acknowledged last; all else must be refused, with an instruction.
"""

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import product
from pathlib import Path

from macvlan_twisted.errors import NewerStateError, StateError
from macvlan_twisted.state.damage import DamageRecovery, is_damage
from macvlan_twisted.state.database import DATABASE_NAME, TABLES, Database
from macvlan_twisted.state.generation import WITNESS_NAME, RuntimeGeneration
from macvlan_twisted.state.group_commit import GroupCommit
from macvlan_twisted.state.interfaces import Allocation, RecordKind
from macvlan_twisted.state.migrations import VERSION
from macvlan_twisted.state.sqlite import (
    SqliteAddressStore,
    SqliteHostRecords,
    StateIdentity,
    identity_of,
    open_database,
)
from macvlan_twisted.worker_threads import WorkerThreads
from tests.lab.lan import Lan
from tests.lab.plugin import Plugin
from tests.lab.requirements import missing_for_lan
from tests.torture.part import Part, TortureRun

LOG_NAME = DATABASE_NAME + "-wal"
NAMES = (DATABASE_NAME, LOG_NAME, WITNESS_NAME)
SECTOR = 512
RECOVERED_EACH = 40
"""One of so many refused states is recovered, as far as that needs no engine."""

Files = dict[str, bytes]
Contents = dict[str, set[tuple[str, ...]]]


@dataclass
class Specimen:
    """A state directory, its contents, and the generation recorded outside of it."""

    name: str
    files: Files
    outside: Files
    contents: Contents


def contents_of(ledger: Database) -> Contents:
    """Return all rows by table."""
    return {table.name: set(ledger.rows(table)) for table in TABLES}


def files_in(directory: Path) -> Files:
    """Read the files of a directory that matter."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name in NAMES}


class Workshop:
    """Creates state directories, and restores them from their files."""

    def __init__(self, place: Path) -> None:
        """All happens within `place`."""
        self.directory = place / "state"
        self.runtime = place / "run"

    def clear(self) -> None:
        """Remove what the last try left."""
        for each in (self.directory, self.runtime):
            shutil.rmtree(each, ignore_errors=True)
            each.mkdir()

    def outside(self) -> RuntimeGeneration:
        """Return the generation recorded outside of the directory."""
        return RuntimeGeneration(self.runtime, self.directory)

    def put(self, files: Files, outside: Files) -> None:
        """Write the files."""
        self.clear()
        for name, raw in files.items():
            (self.directory / name).write_bytes(raw)
        for name, raw in outside.items():
            (self.runtime / name).write_bytes(raw)

    def specimen(self, name: str, ledger: Database) -> Specimen:
        """Copy the directory as a kill would leave it now."""
        return self.found(name, contents_of(ledger))

    def found(self, name: str, contents: Contents) -> Specimen:
        """Copy the directory."""
        outside = {each.name: each.read_bytes() for each in self.runtime.iterdir()}
        return Specimen(name, files_in(self.directory), outside, contents)

    def made_by_ledger(self) -> list[Specimen]:
        """Older, killed, closed: three states of one directory, written by the database code."""
        self.clear()
        ledger = open_database(self.directory, self.outside())
        fill(ledger, range(4))
        ledger.close()
        ledger = open_database(self.directory, self.outside())
        fill(ledger, range(4, 5))
        older = self.specimen("older", ledger)
        fill(ledger, range(5, 7))
        drop(ledger, range(2, 5))
        killed = self.specimen("killed", ledger)
        contents = contents_of(ledger)
        ledger.close()
        return [older, killed, self.found("closed", contents)]

    def made_by_program(self) -> Specimen:
        """Written by the program, called as an engine calls it, and killed."""
        self.clear()
        with Lan() as lan, Plugin(lan) as plugin:
            for number in range(3):
                use(plugin, number)
            plugin.kill()
            files = files_in(plugin.state_dir)
        self.put(files, {})
        with closing(Database(self.directory)) as ledger:
            ledger.open()
            contents = contents_of(ledger)
        return Specimen("program", files, {}, contents)


def fill(ledger: Database, numbers: range) -> None:
    """Add to every kind of record, a commit each, as the driver and address management do."""
    writer = GroupCommit(ledger, WorkerThreads(None, 1, "state"))
    records, book = SqliteHostRecords(ledger, writer, identity_of(ledger)), SqliteAddressStore(ledger, writer)
    for number in numbers:
        pool = f"MacvlanTwistedLocal;192.168.{number}.0/24;;;{number:08x}"
        book.save_pool(pool, {"pool_id": pool, "prefix": f"192.168.{number}.0/24"})
        records.save(RecordKind.NETWORK, f"{number:064x}", {"network_id": f"{number:064x}", "parent": "eth1"})
        records.save(RecordKind.MADE_LINK, f"eth1.{number}", {"name": f"eth1.{number}", "kind": "vlan"})
        records.save(
            RecordKind.HOST_LINK, f"eth{number}", {"parent": f"eth{number}", "name": f"mvh{number:012x}"}
        )
        for host in range(2, 5):
            address = f"192.168.{number}.{host}"
            claim = Allocation(pool, ip_address(address), "endpoint", f"box{host}", "7a:42::")
            book.save_allocation(claim, f"set {number}", advances=True)
            records.save(RecordKind.ENDPOINT, f"{number:032x}{host:032x}", {"address": f"{address}/24"})
        records.save(RecordKind.LEASE, f"eth1 7a:{number}", {"told_address": f"192.168.{number}.9"})
        records.save(RecordKind.CONFLICT, f"eth1 192.168.{number}.8", {"mac": "02:00:00:00:00:01"})


def drop(ledger: Database, numbers: range) -> None:
    """Remove some of it again."""
    writer = GroupCommit(ledger, WorkerThreads(None, 1, "state"))
    records, book = SqliteHostRecords(ledger, writer, identity_of(ledger)), SqliteAddressStore(ledger, writer)
    for number in numbers:
        book.erase_pool(f"MacvlanTwistedLocal;192.168.{number}.0/24;;;{number:08x}")
        records.erase(RecordKind.NETWORK, f"{number:064x}")


def use(plugin: Plugin, number: int) -> None:
    """Have a network made, and an endpoint on it."""
    subnet = f"10.9.{number}"
    network, endpoint = f"{number:064x}", f"{number + 100:064x}"
    options = {"parent": "eth1", "conflict_detection": "off"}
    pool = plugin.call(
        "IpamDriver.RequestPool",
        {"AddressSpace": "MacvlanTwistedLocal", "Pool": f"{subnet}.0/24", "Options": options},
    )["PoolID"]
    plugin.call(
        "IpamDriver.RequestAddress",
        {"PoolID": pool, "Options": {"RequestAddressType": "com.docker.network.gateway"}},
    )
    data = {"AddressSpace": "MacvlanTwistedLocal", "Pool": f"{subnet}.0/24", "Gateway": f"{subnet}.1/24"}
    body = {
        "NetworkID": network,
        "IPv4Data": [data],
        "IPv6Data": [],
        "Options": {"com.docker.network.generic": options},
    }
    assert "Err" not in plugin.call("NetworkDriver.CreateNetwork", body)
    address = plugin.call("IpamDriver.RequestAddress", {"PoolID": pool, "Address": f"{subnet}.7"})["Address"]
    plugin.call(
        "NetworkDriver.CreateEndpoint",
        {"NetworkID": network, "EndpointID": endpoint, "Interface": {"Address": address}},
    )


Damage = tuple[str, Files, Files]
"""A description, the files, and those outside of the directory."""


def lost_files(whole: Specimen) -> Iterator[Damage]:
    """Each file and each set of files gone, with the generation recorded outside."""
    for kept in product((True, False), repeat=len(NAMES)):
        files = {
            name: whole.files[name]
            for name, stays in zip(NAMES, kept, strict=True)
            if stays and name in whole.files
        }
        if len(files) == len(whole.files) and not all(kept):
            continue
        yield f"only {sorted(files)} left", files, whole.outside
        if len(whole.files) - len(files) == 1:
            yield f"only {sorted(files)} left, nothing outside", files, {}


def cut_files(whole: Specimen, lengths: Callable[[int], list[int]]) -> Iterator[Damage]:
    """Each file truncated, with nothing outside that could tell."""
    for name, raw in whole.files.items():
        for length in lengths(len(raw)):
            yield f"{name} cut to {length} of {len(raw)}", {**whole.files, name: raw[:length]}, {}


def damaged_sectors(whole: Specimen, torture: TortureRun, most: int | None) -> Iterator[Damage]:
    """Sectors of a disk read as zeros, or as the one before; each of them, or `most`."""
    found = [(name, place) for name, raw in whole.files.items() for place in range(0, len(raw), SECTOR)]
    torture.random.shuffle(found)
    for name, place in found[:most]:
        raw = whole.files[name]
        before = max(0, place - SECTOR)
        for what, sector in (("zeroed", bytes(SECTOR)), ("repeated", raw[before : before + SECTOR])):
            changed = (raw[:place] + sector + raw[place + SECTOR :])[: len(raw)]
            if changed != raw:
                yield f"{name}: sector at {place} {what}", {**whole.files, name: changed}, {}


def mixed_copies(new: Specimen, old: Specimen, what: str) -> Iterator[Damage]:
    """Each file new, old or gone, in every combination; the generation outside is new."""
    for choice in product(("new", "old", "gone"), repeat=len(NAMES)):
        files = {}
        for name, which in zip(NAMES, choice, strict=True):
            source = {"new": new.files, "old": old.files, "gone": {}}[which]
            if name in source:
                files[name] = source[name]
        yield f"{what}: {dict(zip(NAMES, choice, strict=True))}", files, new.outside


def newer_schema(place: Path, whole: Specimen) -> Iterator[Damage]:
    """A later version of the program has used it."""
    path = place / "newer.sqlite"
    path.write_bytes(whole.files[DATABASE_NAME])
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {VERSION + 1}")
        database.commit()
    yield "newer schema", {**whole.files, DATABASE_NAME: path.read_bytes()}, whole.outside


def foreign_files(whole: Specimen) -> Iterator[Damage]:
    """Something else under the name of each file."""
    for name in whole.files:
        for raw in (
            b"",
            b"\n",
            b"[Unit]\nDescription=x\n",
            bytes(range(256)) * 32,
            b"SQLite format 3\0" * 300,
        ):
            yield f"{name} is {raw[:12]!r}", {**whole.files, name: raw}, whole.outside


def flipped_bytes(whole: Specimen, torture: TortureRun, most: int | None) -> list[tuple[str, int, int]]:
    """File, place and bits of single damaged bytes, in random order; every byte, or `most` of each file."""
    found = []
    for name, raw in whole.files.items():
        places = list(range(len(raw)))
        if most is not None:
            places = torture.random.sample(places, min(most, len(places)))
        found += [(name, place, 1 << torture.random.randrange(8)) for place in places]
    torture.random.shuffle(found)
    return found


class Trial:
    """Tries one damage after the other, and counts."""

    def __init__(self, torture: TortureRun, workshop: Workshop) -> None:
        """Count in the run's tally."""
        self.torture = torture
        self.workshop = workshop
        self.refused = self.harmless = self.recovered = 0

    def all(self, whole: Specimen, damages: Iterator[Damage]) -> None:
        """Try these."""
        for what, files, outside in damages:
            if self.torture.is_over:
                return
            self.one(whole, what, files, outside)

    def one(self, whole: Specimen, what: str, files: Files, outside: Files) -> None:
        """Open it, and see."""
        what = f"{whole.name}: {what}"
        self.workshop.put(files, outside)
        self.torture.progress(doing=what)
        try:
            ledger = open_database(self.workshop.directory, self.workshop.outside())
        except StateError as failure:
            if not is_damage(failure) and not isinstance(failure, NewerStateError):
                self.torture.tally.lose(f"{what}: refused without an instruction: {failure}")
                return
            self.refused += 1
            if self.refused % RECOVERED_EACH == 1 and not self._recovers(what):
                return
        except Exception as error:
            self.torture.tally.lose(f"{what}: {error!r}")
            return
        else:
            with closing(ledger):
                found = contents_of(ledger)
            if found != whole.contents:
                self.torture.tally.lose(f"{what}: opened, with other contents than were acknowledged")
                return
            self.harmless += 1
        self.torture.tally.survive()

    def _recovers(self, what: str) -> bool:
        """A new state can be begun in its place, and nothing of the damaged one is deleted."""
        before = sorted(files_in(self.workshop.directory))
        with DamageRecovery(self.workshop.directory, self.workshop.outside()) as recovering:
            opened, damage = recovering.opened(contents_of)
            if opened is not None:  # sound by itself, but older than what is noted outside
                opened[0].close()
                return True
            aside, ledger = recovering.begun_anew(StateIdentity("0123abcd", 70000), [])
        ledger.close()
        if not damage or (before and (aside is None or sorted(files_in(aside)) != before)):
            self.torture.tally.lose(f"{what}: --recover lost files of the damaged state")
            return False
        open_database(self.workshop.directory, self.workshop.outside()).close()
        self.recovered += 1
        return True


def run(torture: TortureRun) -> None:
    """Damage it."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as place:
        try_all(torture, Workshop(Path(place)), Path(place))


def try_all(torture: TortureRun, workshop: Workshop, place: Path) -> None:
    """Try all ways, the few first."""
    older, killed, closed = workshop.made_by_ledger()
    other = workshop.made_by_ledger()[1]
    program = [] if missing_for_lan() else [workshop.made_by_program()]
    trial = Trial(torture, workshop)
    for whole in (killed, closed, *program):
        trial.one(whole, "nothing at all", whole.files, whole.outside)
        if not trial.harmless:
            return
        if whole not in program:
            trial.all(whole, lost_files(whole))
        trial.all(whole, foreign_files(whole))
        trial.all(whole, newer_schema(place, whole))
    for whole in (killed, closed):
        trial.all(whole, mixed_copies(whole, older, "an older copy"))
        trial.all(whole, mixed_copies(whole, other, "another directory"))

    def lengths(size: int) -> list[int]:
        if not torture.short:
            return sorted({*range(0, size, 64), *range(min(size, 200)), *range(0, size, 4096), size - 1})
        return sorted({0, 1, size // 2, size - 1, *(torture.random.randrange(size) for _ in range(12))})

    for whole in (killed, closed, *program):
        trial.all(whole, cut_files(whole, lengths))
        trial.all(whole, damaged_sectors(whole, torture, 80 if torture.short else None))
    flips = [
        (whole, *flip)
        for whole in (killed, closed, *program)
        for flip in flipped_bytes(whole, torture, 300 if torture.short else None)
    ]
    torture.random.shuffle(flips)
    done = 0
    for whole, name, at, bits in flips:
        if torture.is_over:
            break
        raw = whole.files[name]
        changed = raw[:at] + bytes([raw[at] ^ bits]) + raw[at + 1 :]
        trial.one(whole, f"{name}: byte {at} xor {bits}", {**whole.files, name: changed}, {})
        done += 1
    torture.tally.figures |= {
        "refused with an instruction": str(trial.refused),
        "without effect": str(trial.harmless),
        "begun anew in its place, nothing deleted": str(trial.recovered),
        "single bytes changed": f"{done} of {len(flips)}",
    }


PART = Part(
    "damage",
    "files of the state are lost, truncated, changed or outdated: this is reported or harmless",
    run,
    short_seconds=25,
    seconds=1500,
    least=100,
)
