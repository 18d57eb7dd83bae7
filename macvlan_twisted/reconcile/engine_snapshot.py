"""What the engine lists at one moment."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen
from twisted.logger import Logger

from ..driver.models import Endpoint
from ..driver.registry import Registry
from ..engine.interfaces import EngineError, EngineUnavailable, Inventory, ListedNetwork

_log = Logger(namespace="macvlan_twisted.driver")

Networks = Mapping[str, ListedNetwork]


@frozen
class EngineSnapshot:
    """What an engine lists; empty if none answered."""

    networks: Networks | None = None
    """By id; ``None`` if no engine answered."""
    endpoints: Mapping[str, Mapping[str, str]] = field(factory=dict)
    """By network: the containers' names by endpoint. A network that the engine did not describe is missing."""
    engine_id: str = ""
    """
    The id of the engine's network ``none``, which is created once, in the store of all its networks, and never removed.
    The id that ``docker info`` shows may outlive that store, for instance if the disk of the data root is not mounted.
    """
    unavailable: str = ""
    """Why no engine answered."""

    def lists(self, endpoint: Endpoint) -> bool | None:
        """Whether the engine lists the endpoint; ``None`` if it does not have the network, which may be another engine's."""
        listed = self.endpoints.get(endpoint.network_id)
        return None if listed is None else endpoint.endpoint_id in listed


class EngineSnapshots:
    """Takes them, and learns from each what the engine calls our networks and their containers."""

    def __init__(self, engine: Inventory, registry: Registry) -> None:
        self._engine = engine
        self._registry = registry

    async def take(self) -> EngineSnapshot:
        """Ask the engine for its networks, and for the endpoints of those that we know."""
        snapshot = await self._ask()
        if snapshot.networks is None:
            _log.debug(
                "engine: not queried for networks and endpoints in use ({reason})",
                reason=snapshot.unavailable,
            )
        self._note_names(snapshot)
        return snapshot

    async def _ask(self) -> EngineSnapshot:
        try:
            networks = {each.network_id: each for each in await self._engine.networks()}
            endpoints = {}
            for network_id in networks:
                if network_id in self._registry.networks:
                    try:
                        endpoints[network_id] = await self._engine.endpoints_of(network_id)
                    except EngineError:  # removed a moment ago
                        continue
        except (EngineUnavailable, EngineError) as failure:
            return EngineSnapshot(unavailable=str(failure))
        nones = [id_ for id_, each in networks.items() if (each.name, each.driver) == ("none", "null")]
        return EngineSnapshot(networks, endpoints, nones[0] if len(nones) == 1 else "")

    def _note_names(self, snapshot: EngineSnapshot) -> None:
        registry, names = self._registry, self._registry.names
        names.networks.update(
            {id_: each.name for id_, each in (snapshot.networks or {}).items() if id_ in registry.networks}
        )
        for listed in snapshot.endpoints.values():
            names.containers.update(
                {id_: name for id_, name in listed.items() if name and id_ in registry.endpoints}
            )
