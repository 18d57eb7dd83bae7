"""The store of a fleet in memory does what the one in etcd does, and can be troubled on demand."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest
from twisted.internet.defer import ensureDeferred

from macvlan_twisted.fleet.interfaces import FleetClaims
from macvlan_twisted.testing.fleet_claims import FakeClaims, FakeStore
from tests.contracts.fleet_claims_contract import (
    CLAIM,
    OF_B,
    FleetClaimsContract,
    FleetFixture,
    Observer,
    run_by,
)

from .helpers import PluginHarness


class FakeFleet:
    """Two hosts on one store."""

    def __init__(self) -> None:
        self.store = FakeStore()
        self.a: FleetClaims = FakeClaims(self.store)
        self.b: FleetClaims = FakeClaims(self.store)

    def follow(self, claims: FleetClaims, cluster: str, revision: int, observer: Observer) -> None:
        ensureDeferred(claims.watch(cluster, revision, observer))

    async def has_seen(self, observer: Observer, count: int) -> None:
        assert len(observer.told) == count


def at_once(test: Callable[..., Any]) -> Callable[..., None]:
    """Run a coroutine that waits for nothing."""

    @wraps(test)
    def run(self: Any, fleet: FleetFixture) -> None:
        PluginHarness.wait(test(self, fleet))

    return run


@run_by(at_once)
class TestFakeClaims(FleetClaimsContract):
    @pytest.fixture
    def fleet(self) -> FleetFixture:
        """Two hosts."""
        return FakeFleet()


def test_late_claim_is_made_when_nobody_waits_any_more() -> None:
    store = FakeStore()
    claims = FakeClaims(store, holds_changes=True)
    sent = ensureDeferred(claims.claim(CLAIM))
    sent.addErrback(lambda _: None)
    sent.cancel()
    claims.arrive()
    assert store.entries == {CLAIM.key: CLAIM}


def test_late_release_spares_what_was_changed_since() -> None:
    store = FakeStore()
    claims, other = FakeClaims(store), FakeClaims(store)
    PluginHarness.wait(claims.claim(CLAIM))
    claims.holds_changes = True
    sent = ensureDeferred(claims.release(CLAIM))
    sent.addErrback(lambda _: None)
    sent.cancel()
    PluginHarness.wait(other.hand_over(CLAIM, OF_B))
    claims.arrive()
    assert store.entries == {CLAIM.key: OF_B}
