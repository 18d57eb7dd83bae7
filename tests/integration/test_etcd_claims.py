"""The claims of a fleet in a real etcd: what they promise to two hosts, each with its own client."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_twisted
from attrs import field, frozen
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred

from macvlan_twisted.fleet.etcd_claims import EtcdClaims
from macvlan_twisted.fleet.interfaces import FleetClaims
from tests.contracts.fleet_claims_contract import FleetClaimsContract, Observer, run_by
from tests.integration.conftest import need
from tests.integration.etcd_clients import eventually, gateway_to
from tests.integration.on_reactor import on_reactor
from tests.lab.etcd import Cluster
from tests.lab.lan import Lan
from tests.lab.requirements import missing_for_etcd, missing_for_lan


@frozen
class EtcdFleet:
    """Two hosts with their own clients."""

    a: FleetClaims
    b: FleetClaims
    watches: list[Deferred[None]] = field(factory=list)

    def follow(self, claims: FleetClaims, cluster: str, revision: int, observer: Observer) -> None:
        watch = ensureDeferred(claims.watch(cluster, revision, observer))
        watch.addErrback(lambda failure: failure.trap(CancelledError))
        self.watches.append(watch)

    async def has_seen(self, observer: Observer, count: int) -> None:
        await eventually(lambda: len(observer.told) >= count)
        assert len(observer.told) == count

    async def close(self) -> None:
        for watch in self.watches:
            watch.cancel()
        for claims in (self.a, self.b):
            await claims.close()


@pytest.fixture(scope="module")
def place(etcd_version: str) -> Iterator[tuple[Lan, Cluster]]:
    """Run one member for all tests of a version."""
    need(missing_for_lan())
    need(missing_for_etcd(etcd_version))
    with Lan() as lan, Cluster(lan, version=etcd_version) as cluster:
        yield lan, cluster


@pytest_twisted.async_yield_fixture  # type: ignore[untyped-decorator]
async def fleet(place: tuple[Lan, Cluster], request: pytest.FixtureRequest) -> AsyncIterator[EtcdFleet]:
    """Give two hosts whose prefix no other test has."""
    from twisted.internet import reactor

    prefix = f"/{request.node.originalname}"
    async with gateway_to(*place, members=1) as a, gateway_to(*place, members=1) as b:
        made = EtcdFleet(EtcdClaims(a, prefix, reactor), EtcdClaims(b, prefix, reactor))
        yield made
        await made.close()


@run_by(on_reactor)
class TestEtcdClaims(FleetClaimsContract):
    """With each release of etcd."""
