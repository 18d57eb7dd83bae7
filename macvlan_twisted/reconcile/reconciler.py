"""
Compares kernel, state and engine in the background, and removes what is stale or orphaned.

A round checks twice, some seconds apart. What both checks find is removed if the engine has not mentioned it for a while.
A wrong removal is an outage; a missed one is a leak until the next reconciliation.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import MacvlanError
from .engine_snapshot import EngineSnapshot, EngineSnapshots
from .orphans import Orphans, OrphansFound
from .stale_endpoints import StaleEndpoint, StaleEndpoints
from .stale_networks import StaleNetworks, StaleNetworksFound
from .unknown_objects import UnknownObjects, UnknownObjectsFound

_log = Logger(namespace="macvlan_twisted.driver")


@frozen
class GracePeriods:
    """For how many seconds things must have been as they are."""

    idle: float = 120.0
    """
    Since the engine last mentioned what is removed, or since the start. The engine tries each call for 15 s, and moves a
    link into its container within a second of Join on an idle machine. An address that has no endpoint after so long will
    not get one.
    """
    between_checks: float = 5.0
    first: float = 20.0
    """Until the first round: by then the engine has repeated what it had begun before our start, or has given up."""
    unlisted: float = 20.0
    """
    As *idle*, for endpoints that the engine proves to be gone: it lists their network without them, and no container has
    their link. It lists an endpoint from Join on, and Join follows CreateEndpoint at once.
    """


GRACE_PERIODS = GracePeriods()


@frozen
class Findings:
    """What one check found."""

    stale_endpoints: dict[str, StaleEndpoint] = field(factory=dict)
    stale_networks: StaleNetworksFound = field(factory=lambda: StaleNetworksFound({}, {}))
    orphans: OrphansFound = field(factory=OrphansFound)
    unknown: UnknownObjectsFound = field(factory=UnknownObjectsFound)

    @property
    def is_empty(self) -> bool:
        return not any(
            (
                self.stale_endpoints,
                self.stale_networks.networks,
                self.stale_networks.pools,
                self.orphans.addresses,
                self.orphans.leases,
                self.orphans.links,
                self.unknown.networks,
                self.unknown.endpoints,
            )
        )


class Reconciler:
    """
    Runs rounds: :class:`~macvlan_twisted.reconcile.loop.ReconcileLoop` says when.

    :param clock: ``IReactorTime`` of a clock that is never set.
    """

    def __init__(
        self,
        snapshots: EngineSnapshots,
        stale_endpoints: StaleEndpoints,
        stale_networks: StaleNetworks,
        orphans: Orphans,
        unknown_objects: UnknownObjects,
        grace_periods: GracePeriods,
        clock: Any,
    ) -> None:
        self._snapshots = snapshots
        self._stale_endpoints = stale_endpoints
        self._stale_networks = stale_networks
        self._orphans = orphans
        self._unknown_objects = unknown_objects
        self._grace = grace_periods
        self._clock = clock
        self.is_removing = False
        """Whether a round removes something now."""
        self.counts: dict[str, int] = {}
        """By kind: how many were removed since the start, or are in the engine and unknown to us."""

    def run_logged(self) -> Deferred[None]:
        """:meth:`run`, with a failure logged: it does not prevent the next ones."""
        return ensureDeferred(self.run()).addErrback(_log_failure)

    async def run(self) -> None:
        """
        One round: check twice, and remove what both checks found.

        :raises MacvlanError: the kernel or the disk refuses; the next reconciliation tries again.
        """
        first = await self._check()
        if first.is_empty:
            return
        await deferLater(self._clock, self._grace.between_checks)
        second = await self._check()
        self.is_removing = True
        try:
            await self._act(_both(first, second))
        finally:
            self.is_removing = False

    async def _check(self) -> Findings:
        snapshot = await self._snapshots.take()
        await self._stale_networks.note(snapshot)
        return await self._found(snapshot)

    async def _found(self, snapshot: EngineSnapshot) -> Findings:
        idle = self._grace.idle
        return Findings(
            dict(await self._stale_endpoints.find(snapshot, idle, min(idle, self._grace.unlisted))),
            self._stale_networks.find(snapshot, idle),
            await self._orphans.find(idle),
            self._unknown_objects.find(snapshot),
        )

    async def _act(self, found: Findings) -> None:
        before = dict(self.counts)
        idle = self._grace.idle
        for stale in found.stale_endpoints.values():
            await self._count("endpoints removed", self._drop_endpoint(stale))
        for network in found.stale_networks.networks.values():
            await self._drop_network(network)
        for pool in found.stale_networks.pools.values():
            await self._count("pools released", self._stale_networks.drop_pool(pool, idle))
        for orphaned in found.orphans.addresses:
            await self._count("addresses released", self._orphans.release_address(orphaned))
        for key, taking in found.orphans.leases.items():
            await self._count("leases released", self._orphans.release_lease(key, taking))
        for name, index in found.orphans.links.items():
            await self._count("links removed", self._orphans.remove_link(name, index))
        for what, number in self._unknown_objects.report(found.unknown).items():
            self._add(f"unknown {what}", number)
        if self.counts != before:
            _log.debug(
                "reconciliation: totals since the plugin started ({counts})",
                counts=", ".join(f"{what} {number}" for what, number in sorted(self.counts.items())),
            )

    async def _drop_endpoint(self, stale: StaleEndpoint) -> int:
        return int(await self._stale_endpoints.drop(stale))

    async def _drop_network(self, network: Any) -> None:
        try:
            networks, pools = await self._stale_networks.drop_network(network, self._grace.idle)
        except MacvlanError as failure:
            _log_not_removed(failure)
            return
        self._add("networks removed", networks)
        self._add("pools released", pools)

    async def _count(self, what: str, work: Awaitable[int]) -> None:
        try:
            self._add(what, await work)
        except MacvlanError as failure:
            _log_not_removed(failure)

    def _add(self, what: str, number: int) -> None:
        if number:
            self.counts[what] = self.counts.get(what, 0) + number


def _log_failure(failure: Failure) -> None:
    if failure.check(CancelledError):
        return
    if failure.check(MacvlanError):
        # Cause: the kernel did not answer. Remedy: none needed; the plugin tries again at the next reconciliation.
        _log.warn("reconciliation: postponed ({reason})", reason=failure.getErrorMessage())
    else:
        _log.failure("reconciliation: failed", failure=failure)


def _both(first: Findings, second: Findings) -> Findings:
    """What both checks found, as the second one saw it."""
    return Findings(
        {
            id_: each
            for id_, each in second.stale_endpoints.items()
            if id_ in first.stale_endpoints and first.stale_endpoints[id_].endpoint is each.endpoint
        },
        StaleNetworksFound(
            _common(first.stale_networks.networks, second.stale_networks.networks),
            _common(first.stale_networks.pools, second.stale_networks.pools),
        ),
        OrphansFound(
            first.orphans.addresses & second.orphans.addresses,
            _common(first.orphans.leases, second.orphans.leases),
            _common(first.orphans.links, second.orphans.links),
        ),
        UnknownObjectsFound(
            _common(first.unknown.networks, second.unknown.networks),
            _common(first.unknown.endpoints, second.unknown.endpoints),
        ),
    )


def _common(first: Any, second: Any) -> dict[str, Any]:
    found = {}
    for key, value in second.items():
        if key in first and first[key] == value:
            found[key] = value
    return found


def _log_not_removed(failure: MacvlanError) -> None:
    # Cause: the kernel refused, or writing the state failed; the plugin tries again at the next reconciliation. Remedy:
    # see the reason in the line.
    _log.error("reconciliation: cannot remove unused objects ({reason})", reason=str(failure))
