"""
Container names for DHCP servers.

Only engines from 29 on name the container in RequestAddress. Earlier ones are asked some seconds after Join, and the
name is sent when the lease is renewed.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ..dhcp.leases import Leases
from ..driver.endpoint_addresses import lease_of
from ..driver.models import Endpoint
from ..driver.registry import Registry
from ..engine.interfaces import EngineError, EngineUnavailable, Listing

_log = Logger(namespace="macvlan_twisted.driver")

LISTING_DELAY = 3.0
"""Seconds after Join until the engine lists the container, and others that started with it."""
MAX_DELAY = 300.0
MAX_ANSWERS = 4
"""After so many answers without a name the engine is not asked again until another container joins."""


class ContainerNames:
    """
    Sleeps without a timer while all leases have names.

    :param clock: ``IReactorTime``
    """

    def __init__(
        self,
        registry: Registry,
        leases: Leases,
        engine: Listing,
        clock: Any,
    ) -> None:
        self._registry = registry
        self._leases = leases
        self._engine = engine
        self._clock = clock
        self._wake: Deferred[None] = Deferred()

    def joined(self, endpoint: Endpoint) -> None:
        if not self._wake.called and lease_of(endpoint, self._leases) is not None:
            self._wake.callback(None)

    async def learn(self) -> None:
        """Until it is cancelled."""
        while True:
            self._wake = Deferred()
            await self._ask_until_all_are_named()
            await self._wake

    async def _ask_until_all_are_named(self) -> None:
        delay, answers = LISTING_DELAY, 0
        while self._nameless() and answers < MAX_ANSWERS:
            await deferLater(self._clock, delay)
            delay = min(delay * 2, MAX_DELAY)
            try:
                await self._ask()
                answers += 1
            except EngineUnavailable:
                pass

    def _nameless(self) -> dict[str, Endpoint]:
        nameless = set(self._leases.unnamed())
        return {
            id_: endpoint
            for id_, endpoint in self._registry.endpoints.items()
            if nameless
            and (lease := lease_of(endpoint, self._leases)) is not None
            and (endpoint.parent, lease.mac) in nameless
        }

    async def _ask(self) -> None:
        for network_id in {each.network_id for each in self._nameless().values()}:
            try:
                names = await self._engine.endpoints_of(network_id)
            except EngineError as refusal:
                _log.debug(
                    "network {network}: cannot list its containers' names ({reason})",
                    network=network_id[:12],
                    reason=str(refusal),
                )
                continue
            for id_, endpoint in self._nameless().items():
                lease = lease_of(endpoint, self._leases)
                if names.get(id_) and lease is not None:
                    self._leases.set_hostname(endpoint.parent, lease.mac, names[id_])
