"""
Containers' names for those who list them by name, where the engine does not tell them in time.

Only engines from 29 on name a container in RequestAddress. Others are asked some seconds after it has joined, and the
DHCP server hears the name when the lease is renewed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..dhcp.leases import Leases
from ..driver.endpoint_addresses import EndpointAddresses
from ..driver.models import Endpoint
from ..driver.registry import Registry
from ..engine.client import EngineError, EngineUnavailable, Listing

_log = Logger(namespace="macvlan_twisted.driver")

SETTLING = 3.0
"""Seconds after a container has joined; by then the engine lists it, and others that started with it."""
LONGEST_WAIT = 300.0
MOST_ANSWERS = 4
"""After so many answers without a name it is not asked for again, before another container joins."""


class ContainerNames:
    """
    Sleeps without a timer while all leases have names.

    :param wait: waits for some seconds.
    :param stopping: whether the service ends; what is cancelled then looks as if the engine were absent.
    """

    def __init__(
        self,
        registry: Registry,
        endpoint_addresses: EndpointAddresses,
        leases: Leases,
        engine: Listing,
        wait: Callable[[float], Awaitable[object]],
        stopping: Callable[[], bool],
    ) -> None:
        self._registry = registry
        self._endpoint_addresses = endpoint_addresses
        self._leases = leases
        self._engine = engine
        self._wait = wait
        self._stopping = stopping
        self._wake: Deferred[None] = Deferred()
        endpoint_addresses.when_joined.append(self._joined)

    def _joined(self, endpoint: Endpoint) -> None:
        if not self._wake.called and self._endpoint_addresses.lease_of(endpoint) is not None:
            self._wake.callback(None)

    async def learn(self) -> None:
        """Until the service ends."""
        while not self._stopping():
            self._wake = Deferred()
            await self._ask_until_all_are_named()
            if not self._stopping():
                await self._wake

    async def _ask_until_all_are_named(self) -> None:
        delay, answers = SETTLING, 0
        while self._nameless() and answers < MOST_ANSWERS and not self._stopping():
            await self._wait(delay)
            delay = min(delay * 2, LONGEST_WAIT)
            try:
                await self._ask()
                answers += 1
            except EngineUnavailable:
                pass

    def _nameless(self) -> dict[str, Endpoint]:
        nameless = set(self._leases.nameless())
        return {
            id_: endpoint
            for id_, endpoint in self._registry.endpoints.items()
            if nameless
            and (lease := self._endpoint_addresses.lease_of(endpoint)) is not None
            and (endpoint.parent, lease.mac) in nameless
        }

    async def _ask(self) -> None:
        for network_id in {each.network_id for each in self._nameless().values()}:
            try:
                names = await self._engine.endpoints_of(network_id)
            except EngineError as refusal:
                _log.info(
                    "the names of containers in network {network} are not known: {reason}",
                    network=network_id[:12],
                    reason=str(refusal),
                )
                continue
            for id_, endpoint in self._nameless().items():
                lease = self._endpoint_addresses.lease_of(endpoint)
                if names.get(id_) and lease is not None:
                    self._leases.name(endpoint.parent, lease.mac, names[id_])
