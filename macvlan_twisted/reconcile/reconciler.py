"""
The rounds: kernel, state and engine are compared in the background, and what nobody has is removed.

Nothing is removed that was looked at only once: what a look finds is looked at again after a pause, and goes if it is
the same then, and the engine has not spoken of it for a while. A wrong removal is an outage, a missed one a leak until
the next round.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config import Config
from ..driver.registry import Registry
from ..engine.client import Inventory
from ..errors import MacvlanError
from .engine_snapshot import EngineSnapshot, UnknownObjects, take_snapshot, unknown_to_us
from .orphans import Orphans, OrphansFound
from .stale_endpoints import StaleEndpoint, StaleEndpoints
from .stale_networks import StaleNetworks, StaleNetworksFound

_log = Logger(namespace="macvlan_twisted.driver")


@frozen
class GracePeriods:
    """For how long things must have been as they are, in seconds."""

    silence: float = 120.0
    """
    Since the engine spoke of what is removed, or since the start. It tries each call for 15 s, and brings a link into
    its container within a second of Join, on a machine that does nothing else. An address that has no endpoint after so
    long will not get one.
    """
    between_looks: float = 5.0
    first: float = 20.0
    """Until the first round: by then the engine has told what it had begun before our start, or has given up."""


GRACE_PERIODS = GracePeriods()


@frozen
class Findings:
    """What one look found."""

    departed: dict[str, StaleEndpoint] = field(factory=dict)
    dropped: StaleNetworksFound = field(factory=lambda: StaleNetworksFound({}, {}))
    left: OrphansFound = field(factory=OrphansFound)
    unknown: UnknownObjects = field(factory=UnknownObjects)

    @property
    def is_empty(self) -> bool:
        return not any(
            (
                self.departed,
                self.dropped.networks,
                self.dropped.pools,
                self.left.addresses,
                self.left.leases,
                self.left.links,
                self.unknown.networks,
                self.unknown.endpoints,
            )
        )


class Reconciler:
    """
    One round after some time, and then one at each interval; with an interval of 0 there is one round alone, when all
    that was there at the start is old enough.

    :param clock: ``IReactorTime`` of a clock that is never set.
    """

    def __init__(
        self,
        registry: Registry,
        stale_endpoints: StaleEndpoints,
        stale_networks: StaleNetworks,
        orphans: Orphans,
        engine: Inventory,
        config: Config,
        grace_periods: GracePeriods,
        clock: Any,
    ) -> None:
        self._registry = registry
        self._stale_endpoints = stale_endpoints
        self._stale_networks = stale_networks
        self._orphans = orphans
        self._engine = engine
        self._config = config
        self._grace = grace_periods
        self._clock = clock
        self._reported: set[str] = set()
        self._first: Any = None
        self._rounds: LoopingCall | None = None
        self._round: Deferred[None] | None = None
        self._is_acting = False
        self.counts: dict[str, int] = {}
        """By what: how much of it was removed since the start, or is in the engine and not known to us."""

    def start(self) -> None:
        delay = max(self._grace.first, 0 if self._config.reconcile_interval else self._grace.silence)
        self._first = self._clock.callLater(delay, self._start_rounds)

    def _start_rounds(self) -> None:
        self._first = None
        if not self._config.reconcile_interval:
            self._run_logged()
            return
        self._rounds = LoopingCall(self._run_logged)
        self._rounds.clock = self._clock
        self._rounds.start(self._config.reconcile_interval)

    def _run_logged(self) -> Deferred[None]:
        """A round whose failure does not end the next ones."""
        self._round = ensureDeferred(self.run())
        self._round.addErrback(_log_failure)
        return self._round.addCallback(self._round_ended)

    def _round_ended(self, result: None) -> None:
        self._round = None

    async def run(self) -> None:
        """
        One round. What the first look finds is removed if it is still so in the second.

        :raises MacvlanError: the kernel or the disk refuses; the next round tries again.
        """
        first = await self._look()
        if first.is_empty:
            return
        began = self._clock.seconds()
        while (remaining := began + self._grace.between_looks - self._clock.seconds()) > 0:
            await deferLater(
                self._clock, remaining
            )  # a timer may be early: the reactor's own clock may be set
        second = await self._look()
        self._is_acting = True
        try:
            await self._act(_both(first, second))
        finally:
            self._is_acting = False

    async def stop(self) -> None:
        """Finish a removal that has begun."""
        if self._first is not None:
            self._first.cancel()
            self._first = None
        if self._rounds is not None and self._rounds.running:
            self._rounds.stop()
        current = self._round
        if current is None:
            return
        if not self._is_acting:
            current.cancel()
            return
        finished: Deferred[None] = Deferred()
        current.addBoth(lambda _: finished.callback(None))
        await finished

    async def _look(self) -> Findings:
        said = await take_snapshot(self._engine, self._registry)
        if said.networks is None:
            _log.debug("the engine is not asked what is in use: {reason}", reason=said.silence)
        await self._stale_networks.note(said)
        return await self._found(said)

    async def _found(self, said: EngineSnapshot) -> Findings:
        silence = self._grace.silence
        return Findings(
            dict(await self._stale_endpoints.find(said, silence)),
            self._stale_networks.find(said, silence),
            await self._orphans.find(silence),
            self._untold(unknown_to_us(said, self._registry, [self._config.plugin_name])),
        )

    def _untold(self, unknown: UnknownObjects) -> UnknownObjects:
        return UnknownObjects(
            {id_: each for id_, each in unknown.networks.items() if id_ not in self._reported},
            {id_: each for id_, each in unknown.endpoints.items() if id_ not in self._reported},
        )

    async def _act(self, look: Findings) -> None:
        before = dict(self.counts)
        silence = self._grace.silence
        for departure in look.departed.values():
            await self._count("endpoints removed", self._drop_endpoint(departure))
        for network in look.dropped.networks.values():
            await self._drop_network(network)
        for pool in look.dropped.pools.values():
            await self._count("pools released", self._stale_networks.drop_pool(pool, silence))
        for unowned in look.left.addresses:
            await self._count("addresses given back", self._orphans.free_address(unowned))
        for key, taking in look.left.leases.items():
            await self._count("leases given back", self._orphans.give_back_lease(key, taking))
        for name, index in look.left.links.items():
            await self._count("links removed", self._orphans.remove_link(name, index))
        self._tell_unknown(look.unknown)
        if self.counts != before:
            _log.info(
                "since the start, by comparing kernel, state and engine: {counts}",
                counts=", ".join(f"{what} {number}" for what, number in sorted(self.counts.items())),
            )

    async def _drop_endpoint(self, departure: StaleEndpoint) -> int:
        return int(await self._stale_endpoints.drop(departure, self._grace.silence))

    async def _drop_network(self, network: Any) -> None:
        try:
            networks, pools = await self._stale_networks.drop_network(network, self._grace.silence)
        except MacvlanError as failure:
            _log.error("what nobody has cannot be removed: {reason}", reason=str(failure))
            return
        self._add("networks removed", networks)
        self._add("pools released", pools)

    async def _count(self, what: str, work: Awaitable[int]) -> None:
        try:
            self._add(what, await work)
        except MacvlanError as failure:
            _log.error("what nobody has cannot be removed: {reason}", reason=str(failure))

    def _add(self, what: str, number: int) -> None:
        if number:
            self.counts[what] = self.counts.get(what, 0) + number

    def _tell_unknown(self, unknown: UnknownObjects) -> None:
        for id_, network in unknown.networks.items():
            if self._is_news("networks", id_):
                _log.error(
                    "network {network} ({name}) is in the engine and not in state, and no container can start on it: the "
                    "state was lost, or an older one was put back; stop the plugin and start it once with --recover",
                    network=id_[:12],
                    name=network.name,
                )
        for id_, (network_id, name) in unknown.endpoints.items():
            if self._is_news("endpoints", id_):
                _log.error(
                    "endpoint {endpoint} of container {name} in network {network} is in the engine and not in state: the "
                    "state was lost, or an older one was put back; stop the plugin and start it once with --recover, or "
                    "restart that container",
                    endpoint=id_[:12],
                    name=name,
                    network=network_id[:12],
                )

    def _is_news(self, what: str, id_: str) -> bool:
        """Each is told once; what comes back, and goes again, is not worth another line."""
        is_news = id_ not in self._reported
        self._reported.add(id_)
        self._add(f"unknown {what}", is_news)
        return is_news


def _log_failure(failure: Failure) -> None:
    if failure.check(CancelledError):
        return
    if failure.check(MacvlanError):
        _log.warn(
            "kernel, state and engine are compared again later: {reason}", reason=failure.getErrorMessage()
        )
    else:
        _log.failure("comparing kernel, state and engine failed", failure=failure)


def _both(first: Findings, second: Findings) -> Findings:
    """What both looks found, as the second one saw it."""
    return Findings(
        {
            id_: each
            for id_, each in second.departed.items()
            if id_ in first.departed and first.departed[id_].endpoint is each.endpoint
        },
        StaleNetworksFound(
            _kept(first.dropped.networks, second.dropped.networks),
            _kept(first.dropped.pools, second.dropped.pools),
        ),
        OrphansFound(
            first.left.addresses & second.left.addresses,
            _kept(first.left.leases, second.left.leases),
            _kept(first.left.links, second.left.links),
        ),
        UnknownObjects(
            _kept(first.unknown.networks, second.unknown.networks),
            _kept(first.unknown.endpoints, second.unknown.endpoints),
        ),
    )


def _kept(first: Any, second: Any) -> dict[str, Any]:
    found = {}
    for key, value in second.items():
        if key in first and first[key] == value:
            found[key] = value
    return found
