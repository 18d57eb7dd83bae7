"""
The rounds: kernel, state and engine are compared in the background, and what nobody has is removed.

Nothing is removed that was looked at only once: what a look finds is looked at again after a pause, and goes if it is
the same then, and the engine has not spoken of it for a while. A wrong removal is an outage, a missed one a leak until
the next round.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

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
    :param every: seconds from one round to the next; 0: there is one alone, when all that was there at the start is
        old enough.
    :param driver_name: ours.
    :param wait: waits for some seconds.
    :param seconds: a clock that never goes back.
    :param stopping: whether the service ends; what is cancelled then looks as if the engine were absent.
    """

    def __init__(
        self,
        registry: Registry,
        departed: StaleEndpoints,
        drops: StaleNetworks,
        orphans: Orphans,
        engine: Inventory,
        driver_name: str,
        every: float,
        ages: GracePeriods,
        wait: Callable[[float], Awaitable[object]],
        seconds: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._departed = departed
        self._drops = drops
        self._orphans = orphans
        self._engine = engine
        self._driver_name = driver_name
        self._every = every
        self._ages = ages
        self._wait = wait
        self._seconds = seconds
        self._told: set[str] = set()
        self._acting: Deferred[None] | None = None
        self.counts: dict[str, int] = {}
        """By what: how much of it was removed since the start, or is in the engine and not known to us."""

    async def make(self, stopping: Callable[[], bool]) -> None:
        """Until the service ends."""
        await self._wait(max(self._ages.first, 0 if self._every else self._ages.silence))
        while not stopping():
            try:
                await self.round(stopping)
            except MacvlanError as failure:
                _log.warn("kernel, state and engine are compared again later: {reason}", reason=str(failure))
            except Exception:
                if stopping():
                    return
                _log.failure("comparing kernel, state and engine failed")
            if not self._every or stopping():
                return
            await self._wait(self._every)

    async def round(self, stopping: Callable[[], bool]) -> None:
        first = await self._look()
        if first.is_empty or stopping():
            return
        began = self._seconds()
        while (remaining := began + self._ages.between_looks - self._seconds()) > 0:
            await self._wait(remaining)  # by the reactor's clock, which a user may set
        second = await self._look()
        if stopping():
            return
        await self._wholly(self._act(_both(first, second)))

    async def _look(self) -> Findings:
        said = await take_snapshot(self._engine, self._registry)
        if said.networks is None:
            _log.debug("the engine is not asked what is in use: {reason}", reason=said.silence)
        await self._drops.note(said)
        return await self._found(said)

    async def _found(self, said: EngineSnapshot) -> Findings:
        silence = self._ages.silence
        return Findings(
            dict(await self._departed.find(said, silence)),
            self._drops.find(said, silence),
            await self._orphans.find(silence),
            self._untold(unknown_to_us(said, self._registry, [self._driver_name])),
        )

    def _untold(self, unknown: UnknownObjects) -> UnknownObjects:
        return UnknownObjects(
            {id_: each for id_, each in unknown.networks.items() if id_ not in self._told},
            {id_: each for id_, each in unknown.endpoints.items() if id_ not in self._told},
        )

    async def _wholly(self, work: Coroutine[Any, Any, None]) -> None:
        """What has begun is finished, also when the service stops meanwhile."""
        done: Deferred[None] = Deferred()
        self._acting = ensureDeferred(work)
        self._acting.addErrback(_log_failure)

        def finished(_: object) -> None:
            self._acting = None
            if not done.called:
                done.callback(None)

        self._acting.addCallback(finished)
        await done

    async def close(self) -> None:
        """At the end of the service: what has begun is finished."""
        if self._acting is not None:
            finished: Deferred[None] = Deferred()
            self._acting.addBoth(lambda _: finished.callback(None))
            await finished

    async def _act(self, look: Findings) -> None:
        before = dict(self.counts)
        silence = self._ages.silence
        for departure in look.departed.values():
            await self._count("endpoints removed", self._drop_endpoint(departure))
        for network in look.dropped.networks.values():
            await self._drop_network(network)
        for pool in look.dropped.pools.values():
            await self._count("pools released", self._drops.drop_pool(pool, silence))
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
        return int(await self._departed.drop(departure, self._ages.silence))

    async def _drop_network(self, network: Any) -> None:
        try:
            networks, pools = await self._drops.drop_network(network, self._ages.silence)
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
        is_news = id_ not in self._told
        self._told.add(id_)
        self._add(f"unknown {what}", is_news)
        return is_news


def _log_failure(failure: Failure) -> None:
    _log.failure("removing what nobody has failed", failure=failure)


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
