"""``macvlan-twisted fleet leave`` and ``import``: they change the state of this host, and what it has claimed in the fleet."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

from attrs import evolve, frozen
from twisted.internet.task import deferLater

from ..addresses import IPAddress
from ..errors import RequestRefused
from ..fleet.address_users import AddressUse
from ..fleet.interfaces import Claim, ClaimState, Entry, SharedAddress, Snapshot, Wanted
from ..fleet.member import FleetMember
from ..fleet.mirror import Mirror
from ..fleet.own_claims import OwnClaims, described
from ..fleet.rows import ClaimRow, SeenStore, Stage
from ..ipam.fleet_addresses import FleetAddresses
from .fleet_reports import by_address, hosts_of
from .stopped_state import StoppedState
from .terminal import Echo

HAND_OVER_TRIES, HAND_OVER_PAUSE = 20, 0.2
"""How often to look whether a host has handed an address over, and the seconds between two looks."""


class Outcome(StrEnum):
    """What becomes of an address of this host in the fleet."""

    FREE = "is free in the fleet"
    OWN = "belongs to this host already"
    ASKED = "is not used by its host, which will be asked for it"
    CONFLICT = "conflict"


@frozen
class Judged:
    """An address that is allocated here, or reserved for a gateway or the like, and who has it in the fleet."""

    lan: str
    address: IPAddress
    is_shared: bool
    entry: Entry | None
    outcome: Outcome

    def __str__(self) -> str:
        words = f"address {self.address} of LAN {self.lan}"
        if self.outcome is Outcome.FREE and self.entry is not None:
            return f"{words}: is shared by {described(self.entry)}"
        if self.outcome in (Outcome.ASKED, Outcome.CONFLICT) and self.entry is not None:
            return f"{words}: {self.outcome} ({described(self.entry)})"
        return f"{words}: {self.outcome}"


@frozen
class _StoppedHost:
    """What a host whose service does not run does with its addresses: it uses all of them, or leaves for good."""

    is_leaving: bool

    def use_of(self, lan: str, address: IPAddress) -> AddressUse:
        return AddressUse(ClaimState.RESERVE if self.is_leaving else ClaimState.USED)

    def take(self, lan: str, address: IPAddress) -> bool:
        return self.is_leaving

    def is_shared(self, lan: str, address: IPAddress) -> bool:
        return not self.is_leaving

    def allocated(self) -> tuple[tuple[str, IPAddress], ...]:
        return ()

    def reserved(self) -> tuple[tuple[str, IPAddress], ...]:
        return ()

    def surplus(self) -> tuple[tuple[str, IPAddress], ...]:
        return ()

    async def is_abandoned(self, claim: Claim) -> bool:
        return False

    async def is_silent(self, claim: Claim) -> bool:
        return False

    def refill(self) -> None:
        pass


_LEAVING, _JOINING = _StoppedHost(is_leaving=True), _StoppedHost(is_leaving=False)


class Membership:
    """
    This host's part in the fleet while its service does not run.

    :param new_id: makes a random claim id. :param clock: ``IReactorTime`` :param echo: prints a line.
    """

    def __init__(
        self, state: StoppedState, member: FleetMember, new_id: Callable[[], str], clock: Any, echo: Echo
    ) -> None:
        self._instance = state.instance
        self._rows = state.rows
        self._record = member.record
        self._claims = member.claims
        self._own = OwnClaims(
            member.record.host, member.claims, state.rows, Mirror(member.record.host), new_id, clock
        )
        self._fleet = FleetAddresses(self._own, state.pools, clock)
        self._new_id = new_id
        self._clock = clock
        self._echo = echo

    async def _snapshot(self) -> Snapshot:
        """:raises RequestRefused: this state runs on another host, too."""
        snapshot = await self._claims.snapshot()
        self._own.mirror.load(snapshot)
        self._own.unavailable = ""
        for record in snapshot.alive:
            if record.host.instance == self._instance and record.boot_id != self._record.boot_id:
                raise RequestRefused(
                    f"host {record.host.name} is alive with a copy of this state directory: run the command there, or wait 15 seconds "
                    "if this machine has just been booted"
                )
        return snapshot

    # Leave.

    async def leave(self, *, force: bool = False, dry_run: bool = False) -> int:
        """
        Release all claims of this host, and its record.

        :param force: even if containers have addresses.
        :return: the exit status.
        :raises RequestRefused: containers have addresses. Nothing was changed.
        :raises FleetUnavailable: run it again for what is left.
        """
        in_use = [str(address) for _, address in self._fleet.in_use()]
        if in_use and not force:
            more = f" and {len(in_use) - 8} more" if len(in_use) > 8 else ""
            raise RequestRefused(
                f"addresses are in use on this host: {', '.join(in_use[:8])}{more}; remove these containers, or add --force"
            )
        for entry in self._owned(await self._snapshot()):
            verb = "would be released" if dry_run else "is to be released"
            self._echo(f"{verb}: address {entry.address} of LAN {entry.lan}")
        if dry_run:
            return 0
        for row in list(self._rows.by_key.values()):
            await (self._own.unshare if row.is_shared else self._own.release)(*row.key, _LEAVING)
        snapshot = await self._snapshot()
        for entry in self._owned(snapshot):  # what no row knows
            if isinstance(entry, SharedAddress):
                await self._claims.unshare(entry)
            else:
                await self._claims.release(entry)
        names = {
            host.name
            for host in (*snapshot.known, *(each.host for each in snapshot.alive))
            if host.instance == self._instance
        }
        for name in sorted(names):
            await self._claims.leave(name)
        await self._rows.save_seen(SeenStore())
        self._echo(
            f"host {self._record.host.name} has left the fleet: start the plugin without --fleet from now on"
        )
        return 0

    def _owned(self, snapshot: Snapshot) -> list[Entry]:
        """All that belongs to this state, whatever its host was called then; of shared addresses its own part."""
        found: list[Entry] = []
        for entry in sorted(snapshot.entries, key=by_address):
            own = frozenset(host for host in hosts_of(entry) if host.instance == self._instance)
            if own:
                found.append(evolve(entry, holders=own) if isinstance(entry, SharedAddress) else entry)
        return found

    # Import.

    async def join(self, *, dry_run: bool = False) -> int:
        """
        Compare what this host had before it joined with the fleet, and claim it unless another host uses some of it.

        :return: the exit status.
        :raises RequestRefused: another host has this host's name. Nothing was changed.
        :raises FleetUnavailable: run it again for what is left.
        """
        snapshot = await self._snapshot()
        for record in snapshot.alive:
            if record.host.name == self._record.host.name and record.host != self._record.host:
                raise RequestRefused(
                    f"another host of the fleet is called {record.host.name!r}: choose another --fleet-host"
                )
        judged = self._judge()
        for each in judged:
            self._echo(str(each))
        conflicts = sum(each.outcome is Outcome.CONFLICT for each in judged)
        if conflicts:
            self._echo(
                f"nothing was claimed, since other hosts have {conflicts} of these addresses: remove the container here or there; "
                "if the other host is silent, start it or run macvlan-twisted fleet forget for it"
            )
            return 1
        if dry_run or not judged:
            self._echo("nothing was claimed: this is a dry run" if judged else "there is nothing to claim")
            return 0
        await self._claims.join(self._record)
        failed = [each for each in judged if not await self._claim(each)]
        for each in failed:
            self._echo(f"not claimed: address {each.address} of LAN {each.lan}, run the command again")
        self._echo(f"claimed: {len(judged) - len(failed)} addresses")
        return 1 if failed else 0

    def _judge(self) -> list[Judged]:
        keys = [(key, False) for key in self._fleet.in_use()] + [
            (key, True) for key in self._fleet.reserved()
        ]
        found = {
            key: Judged(*key, is_shared, entry, self._outcome(entry, is_shared))
            for key, is_shared in keys
            for entry in [self._own.mirror.entry(*key)]
        }
        return [found[key] for key in sorted(found, key=lambda key: (key[0], key[1].version, int(key[1])))]

    def _outcome(self, entry: Entry | None, is_shared: bool) -> Outcome:
        if entry is None:
            return Outcome.FREE
        if isinstance(entry, SharedAddress):
            if not is_shared:
                return Outcome.CONFLICT
            return Outcome.OWN if self._own.host in entry.holders else Outcome.FREE
        if entry.owner.instance == self._instance:
            return Outcome.OWN
        is_given = entry.state is not ClaimState.USED and self._own.mirror.is_alive(entry.owner)
        return Outcome.ASKED if is_given and not is_shared else Outcome.CONFLICT

    async def _claim(self, judged: Judged) -> bool:
        """:return: whether it is ours now."""
        lan, address, entry = judged.lan, judged.address, judged.entry
        container = mac = ""
        if (
            isinstance(entry, Claim) and judged.outcome is Outcome.OWN
        ):  # perhaps without a row, or under another name
            container, mac = entry.container, entry.mac
            await self._rows.save(ClaimRow(lan, address, entry.claim_id, Stage.OWNED))
        if judged.is_shared:
            return await self._own.share(lan, address) is None
        if judged.outcome is Outcome.ASKED and not await self._obtain(lan, address):
            return False
        await self._own.adopt(lan, address, _JOINING)
        return (lan, address) not in self._own.disputed and await self._own.update(
            lan, address, ClaimState.USED, container, mac
        )

    async def _obtain(self, lan: str, address: IPAddress) -> bool:
        """Ask the owner of an address that it does not use; the service there hands it over."""
        row = ClaimRow(lan, address, self._new_id())
        await self._rows.save(row)
        wanted = Wanted(lan, address, self._own.host, row.claim_id)
        await self._claims.want(wanted)
        try:
            for _ in range(HAND_OVER_TRIES):
                entry = await self._claims.claim(Claim(lan, address, self._own.host, row.claim_id))
                if isinstance(entry, Claim) and entry.claim_id == row.claim_id:
                    return True
                await deferLater(self._clock, HAND_OVER_PAUSE, lambda: None)
        finally:
            await self._claims.unwant(wanted)
        await self._rows.erase(row)
        return False
