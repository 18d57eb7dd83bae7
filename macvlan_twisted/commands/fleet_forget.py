"""``macvlan-twisted fleet forget``: an administrator decides that a host never comes back, and frees its addresses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from attrs import evolve, frozen

from ..addresses import IPAddress
from ..errors import RequestRefused
from ..fleet.interfaces import Claim, Entry, FleetClaims, SharedAddress, Snapshot
from ..fleet.own_claims import described
from ..lan.address_probe import Inconclusive, InUse, Verdict
from .fleet_reports import by_address, hosts_of
from .terminal import Echo

Key = tuple[str, IPAddress]
Prober = Callable[[Collection[Key]], Awaitable[Mapping[Key, Verdict]]]
"""Asks the LANs who has these addresses."""


@frozen
class Forgetting:
    """:param prober: ``None`` not to probe."""

    name: str
    prober: Prober | None
    is_agreed: Callable[[], bool]
    former: bool = False
    """Only what belongs to earlier instances of the host."""
    dry_run: bool = False


async def forget(asked: Forgetting, claims: FleetClaims, echo: Echo) -> int:
    """
    List what the host has, probe it, and free what no station answers for.

    :param echo: prints a line.
    :return: the exit status.
    :raises RequestRefused: the host is alive, or unknown, or its LAN cannot be probed. Nothing was changed.
    :raises FleetUnavailable: run it again for what is left.
    """
    found = _entries(await claims.snapshot(), asked)
    verdicts = await _probed([each.key for each in found if isinstance(each, Claim)], asked)
    kept = {key: verdict.user for key, verdict in verdicts.items() if isinstance(verdict, InUse)}
    freed = [each for each in found if each.key not in kept]
    for each in freed:
        echo(f"{'would be' if asked.dry_run else 'is to be'} freed: {_words(each)}")
    for each in found:
        if each.key in kept:
            echo(f"stays: {_words(each)}: {kept[each.key]}")
    if not found:
        echo(f"host {asked.name} has no addresses")
    if asked.dry_run:
        return 0
    if not asked.is_agreed():
        return 1
    _entries(await claims.snapshot(), asked)  # it may have come back meanwhile
    for each in freed:
        await _free(each, claims)
        echo(f"freed: {_words(each)}")
    if kept:
        echo(
            f"host {asked.name} is not forgotten yet, since stations answer for {len(kept)} of its addresses: remove them from "
            "the LAN and run the command again, or add --no-probe"
        )
        return 1
    if not asked.former:
        await claims.leave(asked.name)
        echo(f"forgotten: host {asked.name}")
    return 0


def _entries(snapshot: Snapshot, asked: Forgetting) -> list[Entry]:
    """
    What is to be freed, unless it is in use; of a shared address only the host's own part.

    :raises RequestRefused: the host is alive, or unknown.
    """
    name = asked.name
    alive = {record.host.name: record.host for record in snapshot.alive}
    known = {host.name: host for host in snapshot.known}
    current = alive.get(name) or known.get(name)
    if asked.former and current is None:
        raise RequestRefused(f"host {name} has no present instance in the fleet: leave --former out")
    if name in alive and not asked.former:
        raise RequestRefused(
            f"host {name} is alive: stop the plugin there, and run the command again when the host counts as silent, 15 seconds "
            "later"
        )
    found: list[Entry] = []
    for entry in sorted(snapshot.entries, key=by_address):
        theirs = frozenset(
            host for host in hosts_of(entry) if host.name == name and not (asked.former and host == current)
        )
        if theirs:
            found.append(evolve(entry, holders=theirs) if isinstance(entry, SharedAddress) else entry)
    if not found and current is None:
        names = sorted(
            {*alive, *known, *(each.name for entry in snapshot.entries for each in hosts_of(entry))}
        )
        raise RequestRefused(f"the fleet has no host {name!r}: choose one of {', '.join(names) or 'none'}")
    return found


async def _probed(keys: Sequence[Key], asked: Forgetting) -> Mapping[Key, Verdict]:
    """
    Shared addresses are not probed: the LAN's gateway answers for its own.

    :raises RequestRefused: a probe could not be sent.
    """
    if asked.prober is None or not keys:
        return {}
    verdicts = await asked.prober(keys)
    for (_, address), verdict in verdicts.items():
        if isinstance(verdict, Inconclusive):
            raise RequestRefused(
                f"address {address} cannot be probed ({verdict.reason}): bring the parent up, choose another --parent, or add "
                "--no-probe if the host and its containers are switched off"
            )
    return verdicts


async def _free(entry: Entry, claims: FleetClaims) -> None:
    if isinstance(entry, SharedAddress):
        await claims.unshare(entry)
    else:
        await claims.release(entry)


def _words(entry: Entry) -> str:
    return f"address {entry.address} of LAN {entry.lan}, {described(entry)}"
