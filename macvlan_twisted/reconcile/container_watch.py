"""
Follows the engine's containers in the background, so that it is known whose each address is when a request comes.

``/events`` says that something has happened, and ``/containers/json`` what there is then. The engine answers both while it
starts a container; a description of that container would wait for us.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..driver.registry import Registry
from ..engine.interfaces import (
    Containers,
    EngineDown,
    EngineError,
    EngineEvent,
    EngineUnavailable,
    ListedAttachment,
)
from ..errors import StateError
from ..ipam.fleet_users import FleetUsers
from ..ipam.last_addresses import LastAddresses, ListedContainer

_log = Logger(namespace="macvlan_twisted.driver")

BETWEEN_LISTS = 0.2
"""Seconds, while many containers start and stop."""
SOON, SOON_SECONDS = 0.25, 60.0
"""While no engine runs: how often it is looked for, and for how long so often."""
LATER = 10.0
WARN_AFTER = 60.0
"""Seconds after the start, if no engine has answered by then."""
NO_ANSWER = 0.3
"""Seconds after which an engine that accepted a connection has not answered because it is still starting."""


class ContainerWatch:
    """
    An engine that starts has its containers request addresses before it answers anybody. Until it answers, nobody can create a
    container, so its last list holds. That it starts is known if it did not run a moment ago, or does not answer.

    :param clock: ``IReactorTime``
    :param docker_host: where the engine is, for a warning.
    """

    def __init__(
        self,
        registry: Registry,
        engine: Containers,
        last_addresses: LastAddresses,
        fleet_users: FleetUsers,
        clock: Any,
        docker_host: str,
    ) -> None:
        self._registry = registry
        self._engine = engine
        self._last_addresses = last_addresses
        self._fleet_users = fleet_users
        self._clock = clock
        self._docker_host = docker_host
        self._is_answer_awaited = True
        """Whether nobody has answered yet since the start, and no warning said so."""
        self._events = 0
        self._listing: Deferred[None] | None = None
        self._is_listing = False
        self._network_names: dict[str, str] | None = None
        """By what a container calls its network: the id. ``None`` if it is to be asked for."""

    async def run(self) -> None:
        """Until it is cancelled."""
        started = away_since = self._clock.seconds()
        while True:
            is_down = False
            try:
                await (await self._connect())
            except (EngineError, EngineUnavailable) as failure:
                _log.debug("engine: cannot watch container events ({reason})", reason=str(failure))
                is_down = isinstance(failure, EngineDown)
                if self._clock.seconds() - started >= WARN_AFTER:
                    self._warn(failure)
            else:
                away_since = self._clock.seconds()
            finally:
                self._last_addresses.is_current = False
                self._stop_listing()
            is_soon = self._clock.seconds() - away_since < SOON_SECONDS
            self._last_addresses.is_current = is_down and is_soon
            await deferLater(self._clock, SOON if is_soon else LATER)

    def _warn(self, failure: Exception) -> None:
        if self._is_answer_awaited:
            self._is_answer_awaited = False
            # Cause: Docker is not running, uses another socket, or does not let the plugin's user connect.
            # Remedy: start Docker, correct --docker-host, or set it to ``none``; with the systemd unit, see the
            # drop-in ``engine-api.conf``.
            _log.warn(
                "engine: no answer on {socket} since the plugin started ({reason}); start Docker, or correct --docker-host",
                socket=self._docker_host,
                reason=str(failure),
            )

    async def _connect(self) -> Deferred[None]:
        no_answer = self._clock.callLater(NO_ANSWER, self._starts)
        try:
            ended = await self._engine.follow_events(self._note)
        finally:
            if no_answer.active():
                no_answer.cancel()
        self._is_answer_awaited = False
        self._network_names = None
        self._list_again()
        return ended

    def _starts(self) -> None:
        self._last_addresses.is_current = True

    def _note(self, event: EngineEvent) -> None:
        if event.kind == "network":
            if event.action in ("create", "destroy"):
                self._network_names = None
            if event.object_id not in self._registry.networks:
                return
            if event.action == "connect":
                connected = self._last_addresses.connected(
                    event.object_id, event.container_id, self._has_mac_of_address
                )
                ensureDeferred(connected).addErrback(_log_failure)
        elif event.action == "create":
            self._last_addresses.created(event.object_id)
        elif event.action == "destroy":
            ensureDeferred(self._last_addresses.destroyed(event.object_id)).addErrback(_log_failure)
            return
        self._list_again()

    def _list_again(self) -> None:
        self._events += 1
        self._last_addresses.is_current = False
        if not self._is_listing and self._last_addresses.has_pools:
            self._is_listing = True
            self._listing = ensureDeferred(self._list())
            self._listing.addErrback(_log_failure)

    def _stop_listing(self) -> None:
        if self._listing is not None:
            self._listing.cancel()

    async def _list(self) -> None:
        """
        List containers until nothing has happened meanwhile, and once more: the engine may list an endpoint only some time
        after the event.
        """
        held = -1
        try:
            while True:
                events = self._events
                holds = self._last_addresses.is_current = await self._list_once()
                if holds and held == events:
                    return
                held = events if holds else -1
                await deferLater(self._clock, BETWEEN_LISTS)
        finally:
            self._is_listing = False

    async def _list_once(self) -> bool:
        """:return: whether the list holds."""
        events, since = self._events, self._clock.seconds()
        try:
            listed = await self._engine.containers()
            if self._network_names is None:
                networks = await self._engine.networks()
                self._network_names = {each.name: each.network_id for each in networks}
                self._registry.names.networks.update(
                    {
                        each.network_id: each.name
                        for each in networks
                        if each.network_id in self._registry.networks
                    }
                )
            containers = list(self._on_our_networks(listed, self._network_names))
            await self._last_addresses.listed(listed.keys(), containers, since)
        except (EngineError, EngineUnavailable, StateError) as failure:
            _log.debug("engine: cannot list containers ({reason})", reason=str(failure))
            return False
        _log.debug(
            "engine: lists {number} containers, {attached} on the plugin's networks",
            number=len(listed),
            attached=len({each.container_id for each in containers}),
        )
        return events == self._events

    def _on_our_networks(
        self, listed: Mapping[str, Sequence[ListedAttachment]], names: Mapping[str, str]
    ) -> Iterator[ListedContainer]:
        for container_id, attachments in listed.items():
            for each in attachments:
                network_id = names.get(each.network, each.network)
                if network_id in self._registry.networks:
                    if each.container and each.endpoint_id in self._registry.endpoints:
                        self._note_name(each.endpoint_id, each.container)
                    has_mac = self._has_mac_of_address(each.endpoint_id)
                    yield ListedContainer(container_id, network_id, each.endpoint_id, each.asked, has_mac)

    def _note_name(self, endpoint_id: str, name: str) -> None:
        if self._registry.names.containers.get(endpoint_id) != name:
            self._registry.names.containers[endpoint_id] = name
            self._fleet_users.container_named(endpoint_id)

    def _has_mac_of_address(self, endpoint_id: str) -> bool:
        endpoint = self._registry.endpoints.get(endpoint_id)
        return endpoint is not None and endpoint.has_mac_of_address


def _log_failure(failure: Failure) -> None:
    if not failure.check(CancelledError):
        _log.failure("engine: watching container events failed", failure=failure)
