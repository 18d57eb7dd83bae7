"""State with much in it, written by the product's own code in a few large commits, before the service starts."""

from collections.abc import Iterable
from pathlib import Path

from twisted.internet.defer import Deferred, succeed

from macvlan_twisted.driver.network import Endpoint
from macvlan_twisted.records import to_document
from macvlan_twisted.state.interface import Claim, Kind
from macvlan_twisted.state.ledger import Change, Ledger
from macvlan_twisted.state.sqlite import SqliteAddressBook, SqliteHostRecords

_AT_ONCE = 50_000


class Collected:
    """In the place of the writer: keeps changes until there are many."""

    def __init__(self, ledger: Ledger) -> None:
        """Collect for a ledger."""
        self._ledger = ledger
        self._changes: list[Change] = []

    def submit(self, changes: list[Change], /) -> Deferred[None]:
        """Take changes."""
        self._changes += changes
        if len(self._changes) >= _AT_ONCE:
            self.write()
        return succeed(None)

    def write(self) -> None:
        """Commit what there is."""
        changes, self._changes = self._changes, []
        self._ledger.commit(changes)

    def close(self) -> None:
        """Write the rest, and close the file."""
        self.write()
        self._ledger.close()


def fill_addresses(directory: Path, claims: Iterable[Claim]) -> None:
    """Write addresses as taken."""
    ledger = Ledger(directory)
    collected = Collected(ledger)
    book = SqliteAddressBook(ledger, collected)
    for claim in claims:
        book.claim(claim, "", advances=False)
    collected.close()


def fill_endpoints(directory: Path, endpoints: Iterable[Endpoint]) -> None:
    """Write endpoints."""
    ledger = Ledger(directory)
    collected = Collected(ledger)
    records = SqliteHostRecords(ledger, collected)
    for endpoint in endpoints:
        records.save(Kind.ENDPOINT, endpoint.endpoint_id, to_document(endpoint))
    collected.close()
