"""What every store of a fleet must do: the one in etcd, and the one in memory alike.

Subclasses give the fixture ``fleet``, and run the tests, which are coroutines, with :func:`run_by`.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from attrs import evolve, field, mutable

from macvlan_twisted.addresses import IPAddress, parse_address
from macvlan_twisted.fleet.interfaces import (
    Claim,
    ClaimState,
    Entry,
    FleetClaims,
    Host,
    HostRecord,
    SharedAddress,
    Wanted,
)

T = TypeVar("T")

A, B = Host("a", "instance-a"), Host("b", "instance-b")
RECORD_A, RECORD_B = HostRecord(A, "session-a", "boot-a"), HostRecord(B, "session-b", "boot-b")
ADDRESS, ADDRESS_6 = parse_address("192.168.1.7"), parse_address("fd00::7")
CLAIM = Claim("lab", ADDRESS, A, "claim-1")
OF_B = Claim("lab", ADDRESS, B, "claim-2")
SHARED = SharedAddress("lab", parse_address("192.168.1.1"), frozenset({A}))


@mutable
class Observer:
    """Notes what it is told."""

    told: list[object] = field(factory=list)
    revisions: list[int] = field(factory=list)

    def entry_changed(self, lan: str, address: IPAddress, entry: Entry | None) -> None:
        self.told.append((lan, address, entry))

    def host_changed(self, name: str, record: HostRecord | None) -> None:
        self.told.append((name, record))

    def known_changed(self, name: str, host: Host | None) -> None:
        self.told.append(("known", name, host))

    def wanted_changed(self, lan: str, address: IPAddress, wanted: Wanted | None) -> None:
        self.told.append(("wanted", lan, address, wanted))

    def revision_reached(self, revision: int) -> None:
        self.revisions.append(revision)

    def connection_changed(self, reason: str) -> None:
        pass


class FleetFixture(Protocol):
    """Two hosts on one empty store."""

    a: FleetClaims
    b: FleetClaims

    def follow(self, claims: FleetClaims, cluster: str, revision: int, observer: Observer) -> None:
        """Begin to watch, until the end of the test."""

    async def has_seen(self, observer: Observer, count: int) -> None:
        """Wait until there were so many reports."""


def run_by(run: Callable[[Any], Any]) -> Callable[[type[T]], type[T]]:
    """:param run: turns a coroutine function into a test."""

    def decorate(subclass: type[T]) -> type[T]:
        for name in dir(subclass):
            if name.startswith("test_"):
                setattr(subclass, name, run(getattr(subclass, name)))
        return subclass

    return decorate


class FleetClaimsContract:
    """The tests themselves: coroutines, which subclasses run."""

    async def test_first_claim_wins(self, fleet: FleetFixture) -> None:
        assert await fleet.a.claim(CLAIM) == CLAIM
        assert await fleet.b.claim(OF_B) == CLAIM
        assert list((await fleet.b.snapshot()).entries) == [CLAIM]

    async def test_repeated_claim_finds_itself(self, fleet: FleetFixture) -> None:
        await fleet.a.claim(CLAIM)
        used = evolve(CLAIM, state=ClaimState.USED, container="web", mac="02:00:00:00:00:07")
        assert await fleet.a.update(used)
        assert await fleet.a.claim(CLAIM) == used

    async def test_lans_and_versions_do_not_mix(self, fleet: FleetFixture) -> None:
        claims = [CLAIM, evolve(OF_B, lan="other"), evolve(OF_B, address=ADDRESS_6)]
        assert [await fleet.a.claim(each) for each in claims] == claims
        assert sorted((await fleet.a.snapshot()).entries, key=str) == sorted(claims, key=str)

    async def test_update_of_another_claim_changes_nothing(self, fleet: FleetFixture) -> None:
        assert not await fleet.a.update(CLAIM)
        await fleet.b.claim(OF_B)
        assert not await fleet.a.update(evolve(CLAIM, state=ClaimState.USED))
        assert await fleet.a.claim(CLAIM) == OF_B

    async def test_released_address_is_free(self, fleet: FleetFixture) -> None:
        await fleet.a.claim(CLAIM)
        await fleet.a.release(CLAIM)
        await fleet.a.release(CLAIM)
        assert await fleet.b.claim(OF_B) == OF_B

    async def test_release_spares_the_next_owner(self, fleet: FleetFixture) -> None:
        await fleet.a.claim(CLAIM)
        await fleet.a.release(CLAIM)
        await fleet.b.claim(OF_B)
        await fleet.a.release(CLAIM)
        assert await fleet.a.claim(CLAIM) == OF_B

    async def test_claim_of_an_earlier_life_is_released(self, fleet: FleetFixture) -> None:
        """Another process, which has not made the claim itself, knows its id."""
        await fleet.a.claim(CLAIM)
        await fleet.b.release(CLAIM)
        assert list((await fleet.a.snapshot()).entries) == []

    async def test_handed_over_claim_belongs_to_the_other_host(self, fleet: FleetFixture) -> None:
        await fleet.a.claim(CLAIM)
        assert await fleet.a.hand_over(CLAIM, OF_B)
        await fleet.a.release(CLAIM)
        assert await fleet.b.claim(OF_B) == OF_B
        assert await fleet.b.update(evolve(OF_B, state=ClaimState.USED))

    async def test_repeated_hand_over_succeeds(self, fleet: FleetFixture) -> None:
        """The reply to the first one may have been lost."""
        await fleet.a.claim(CLAIM)
        assert await fleet.a.hand_over(CLAIM, OF_B)
        assert await fleet.a.hand_over(CLAIM, OF_B)

    async def test_nothing_is_handed_over_twice(self, fleet: FleetFixture) -> None:
        await fleet.a.claim(CLAIM)
        await fleet.a.release(CLAIM)
        assert not await fleet.a.hand_over(CLAIM, OF_B)
        assert list((await fleet.a.snapshot()).entries) == []

    async def test_gateway_is_shared(self, fleet: FleetFixture) -> None:
        of_b = evolve(SHARED, holders=frozenset({B}))
        both = evolve(SHARED, holders=frozenset({A, B}))
        assert await fleet.a.share(SHARED) == SHARED
        assert await fleet.b.share(of_b) == both
        assert await fleet.b.share(of_b) == both
        await fleet.a.unshare(SHARED)
        assert list((await fleet.a.snapshot()).entries) == [of_b]
        await fleet.b.unshare(of_b)
        await fleet.b.unshare(of_b)
        assert list((await fleet.a.snapshot()).entries) == []

    async def test_claim_and_shared_address_exclude_each_other(self, fleet: FleetFixture) -> None:
        await fleet.a.share(SHARED)
        claim = Claim(SHARED.lan, SHARED.address, B, "claim-3")
        assert await fleet.b.claim(claim) == SHARED
        await fleet.a.unshare(SHARED)
        assert await fleet.b.claim(claim) == claim
        assert await fleet.a.share(SHARED) == claim

    async def test_hosts_are_alive_and_known(self, fleet: FleetFixture) -> None:
        await fleet.a.join(RECORD_A)
        await fleet.b.join(RECORD_B)
        found = await fleet.a.snapshot()
        assert set(found.alive) == {RECORD_A, RECORD_B}
        assert set(found.known) == {A, B}

    async def test_forgotten_host_leaves_its_claims(self, fleet: FleetFixture) -> None:
        await fleet.a.join(RECORD_A)
        await fleet.a.claim(CLAIM)
        await fleet.b.leave("a")
        found = await fleet.b.snapshot()
        assert (list(found.alive), list(found.known), list(found.entries)) == ([], [], [CLAIM])

    async def test_joining_again_replaces_the_record(self, fleet: FleetFixture) -> None:
        await fleet.a.join(RECORD_A)
        again = evolve(RECORD_A, session="session-2")
        await fleet.b.join(again)
        assert list((await fleet.a.snapshot()).alive) == [again]

    async def test_wanted_address_is_asked_for_until_withdrawn(self, fleet: FleetFixture) -> None:
        wanted = Wanted("lab", ADDRESS, A, "claim-4")
        await fleet.a.join(RECORD_A)
        await fleet.a.want(wanted)
        assert list((await fleet.b.snapshot()).wanted) == [wanted]
        await fleet.a.unwant(wanted)
        await fleet.a.unwant(wanted)
        assert list((await fleet.b.snapshot()).wanted) == []

    async def test_request_of_another_host_is_not_withdrawn(self, fleet: FleetFixture) -> None:
        await fleet.a.join(RECORD_A)
        await fleet.b.join(RECORD_B)
        of_a, of_b = Wanted("lab", ADDRESS, A, "claim-4"), Wanted("lab", ADDRESS, B, "claim-5")
        await fleet.a.want(of_a)
        await fleet.b.want(of_b)
        await fleet.a.unwant(of_a)
        assert list((await fleet.a.snapshot()).wanted) == [of_b]

    async def test_changes_are_reported_in_order(self, fleet: FleetFixture) -> None:
        await fleet.a.join(RECORD_A)
        start = await fleet.b.snapshot()
        observer = Observer()
        wanted = Wanted("lab", ADDRESS, A, "claim-4")
        used = evolve(CLAIM, state=ClaimState.USED, container="web")
        await fleet.a.claim(CLAIM)
        fleet.follow(fleet.b, start.cluster, start.revision, observer)
        await fleet.a.update(used)
        await fleet.a.want(wanted)
        await fleet.a.unwant(wanted)
        await fleet.a.release(CLAIM)
        await fleet.b.leave("a")
        await fleet.has_seen(observer, 7)
        assert observer.told[:5] == [
            ("lab", ADDRESS, CLAIM),
            ("lab", ADDRESS, used),
            ("wanted", "lab", ADDRESS, wanted),
            ("wanted", "lab", ADDRESS, None),
            ("lab", ADDRESS, None),
        ]
        assert set(observer.told[5:]) == {("a", None), ("known", "a", None)}
        assert observer.revisions == sorted(observer.revisions)
        assert observer.revisions[-1] == (await fleet.a.snapshot()).revision

    async def test_revision_grows_with_each_change(self, fleet: FleetFixture) -> None:
        before = await fleet.a.snapshot()
        await fleet.a.claim(CLAIM)
        after = await fleet.b.snapshot()
        assert after.cluster == before.cluster
        assert after.revision > before.revision
