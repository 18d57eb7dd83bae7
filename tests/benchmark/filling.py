"""State with much in it, and the links that belong to it, made before the service starts.

The product's own code writes the rows, in a few large commits, and `ip -batch` makes the links.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from ipaddress import IPv4Interface
from pathlib import Path

from twisted.internet.defer import Deferred, succeed

from macvlan_twisted.driver.models import Endpoint
from macvlan_twisted.link_names import alias_of, endpoint_link_name
from macvlan_twisted.macs import mac_from_ip
from macvlan_twisted.state.database import Change, Database
from macvlan_twisted.state.interfaces import Allocation, RecordKind
from macvlan_twisted.state.serialize import to_document
from macvlan_twisted.state.sqlite import (
    SqliteAddressStore,
    SqliteHostRecords,
    StateIdentity,
    identity_of,
)
from tests.benchmark.protocol import NETWORK
from tests.lab.commands import attempt
from tests.lab.commands import run as run_program
from tests.lab.lan import Lan

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
    """Endpoints that were made in an earlier life."""
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


def fill_endpoints(directory: Path, endpoints: Iterable[Endpoint]) -> StateIdentity:
    """Write endpoints, and return whose they are."""
    ledger = Database(directory)
    ledger.open()
    identity = identity_of(ledger)
    collected = Collected(ledger)
    records = SqliteHostRecords(ledger, collected, identity)
    for endpoint in endpoints:
        records.save(RecordKind.ENDPOINT, endpoint.endpoint_id, to_document(endpoint))
    collected.close()
    return identity


IN_ONE_NAMESPACE = 50
"""Links that share a container's namespace: with one for each the machine would take longer than all that is measured."""


def make_links(lan: Lan, identity: StateIdentity, endpoints: Iterable[Endpoint]) -> None:
    """Make the links of endpoints in the host's namespace, where they are before Join and after Leave."""
    commands = [command for each in endpoints for command in _commands(identity, each)]
    ip_batch(*lan.enter("host"), commands=commands)


def make_containers(
    lan: Lan, identity: StateIdentity, endpoints: Sequence[Endpoint], undo: ExitStack
) -> None:
    """Make the links of endpoints where they are while their containers run: up, in other namespaces."""
    for first in range(0, len(endpoints), IN_ONE_NAMESPACE):
        box = f"{lan.tag}-box{first}"
        run_program("ip", "netns", "add", box)
        undo.callback(attempt, "ip", "netns", "delete", box)
        run_program(*lan.enter("host"), "ip", "netns", "set", box, "auto")  # as a move of a link there does
        commands = [
            _commands(identity, each, f"netns {box}") for each in endpoints[first : first + IN_ONE_NAMESPACE]
        ]
        ip_batch(*lan.enter("host"), commands=[add for add, _ in commands])
        ip_batch("ip", "netns", "exec", box, commands=[f"{mark} up" for _, mark in commands])


def _commands(identity: StateIdentity, endpoint: Endpoint, place: str = "") -> tuple[str, str]:
    """Say how `ip` adds the link of an endpoint, and how it marks it."""
    alias = alias_of(identity.instance, "endpoint", endpoint.endpoint_id)
    add = f"link add link {endpoint.parent} name {endpoint.link} address {endpoint.mac}"
    return (
        f"{add} group {identity.link_group} {place} type macvlan mode bridge",
        f"link set dev {endpoint.link} alias {alias}",
    )


def ip_batch(*enter: str, commands: Iterable[str]) -> None:
    """Run many commands of `ip` behind the words that enter a namespace."""
    text = "".join(f"{each}\n" for each in commands)
    run_program(*enter, "ip", "-batch", "-", stdin=text.encode(), timeout=300)
