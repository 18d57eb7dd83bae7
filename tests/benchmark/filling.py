"""State with much in it, written by the product's own code in a few large commits, before the service starts."""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Interface
from pathlib import Path

from twisted.internet.defer import Deferred, succeed

from macvlan_twisted.driver.models import Endpoint
from macvlan_twisted.link_names import endpoint_link_name
from macvlan_twisted.macs import mac_from_ip
from macvlan_twisted.state.database import Change, Database
from macvlan_twisted.state.interfaces import Allocation, RecordKind
from macvlan_twisted.state.serialize import to_document
from macvlan_twisted.state.sqlite import SqliteAddressStore, SqliteHostRecords, identity_of
from tests.benchmark.protocol import NETWORK

_AT_ONCE = 50_000


class Collected:
    """Stands in for the group commit: collects changes until there are many."""

    def __init__(self, ledger: Database) -> None:
        """Collect for a ledger."""
        self._ledger = ledger
        self._changes: list[Change] = []

    def submit(self, changes: list[Change], /) -> Deferred[None]:
        """Collect changes."""
        self._changes += changes
        if len(self._changes) >= _AT_ONCE:
            self.write()
        return succeed(None)

    def write(self) -> None:
        """Commit the changes collected so far."""
        changes, self._changes = self._changes, []
        self._ledger.commit(changes)

    def close(self) -> None:
        """Write the rest, and close the file."""
        self.write()
        self._ledger.close()


def fill_addresses(directory: Path, allocations: Iterable[Allocation]) -> None:
    """Write addresses as taken."""
    ledger = Database(directory)
    ledger.open()
    collected = Collected(ledger)
    book = SqliteAddressStore(ledger, collected)
    for each in allocations:
        book.save_allocation(each, "", advances=False)
    collected.close()


def endpoints(number: int) -> Iterator[Endpoint]:
    """Endpoints that were made in an earlier life, and whose links are in containers."""
    for each in range(number):
        endpoint_id = f"e{each:063x}"
        address = IPv4Interface(f"10.200.{each >> 8}.{each & 255}/8")
        yield Endpoint(
            endpoint_id=endpoint_id,
            network_id=NETWORK,
            link=endpoint_link_name(endpoint_id),
            parent="eth1",
            mac=mac_from_ip(address, None, endpoint_id),
            mac_generated=True,
            address=address,
            address_v6=None,
        )


def fill_endpoints(directory: Path, endpoints: Iterable[Endpoint]) -> None:
    """Write endpoints."""
    ledger = Database(directory)
    ledger.open()
    collected = Collected(ledger)
    records = SqliteHostRecords(ledger, collected, identity_of(ledger))
    for endpoint in endpoints:
        records.save(RecordKind.ENDPOINT, endpoint.endpoint_id, to_document(endpoint))
    collected.close()
