"""What the engine lists at one moment, and what of it is unknown to us."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import field, frozen

from ..driver.models import Endpoint
from ..driver.registry import Registry
from ..engine.interfaces import EngineError, EngineUnavailable, Inventory, ListedNetwork

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


async def take_snapshot(engine: Inventory, registry: Registry) -> EngineSnapshot:
    """Ask the engine for its networks, and for the endpoints of those that we know."""
    try:
        networks = {each.network_id: each for each in await engine.networks()}
        endpoints = {}
        for network_id in networks:
            if network_id in registry.networks:
                try:
                    endpoints[network_id] = await engine.endpoints_of(network_id)
                except EngineError:  # removed a moment ago
                    continue
    except (EngineUnavailable, EngineError) as failure:
        return EngineSnapshot(unavailable=str(failure))
    nones = [id_ for id_, each in networks.items() if (each.name, each.driver) == ("none", "null")]
    return EngineSnapshot(networks, endpoints, nones[0] if len(nones) == 1 else "")


def note_names(snapshot: EngineSnapshot, registry: Registry) -> None:
    """Learn what the engine calls our networks and their containers."""
    names = registry.names
    names.networks.update(
        {id_: each.name for id_, each in (snapshot.networks or {}).items() if id_ in registry.networks}
    )
    for listed in snapshot.endpoints.values():
        names.containers.update(
            {id_: name for id_, name in listed.items() if name and id_ in registry.endpoints}
        )


@frozen
class UnknownObjects:
    """What an engine has of us that we do not know: our state was lost, or an older copy was restored."""

    networks: Mapping[str, ListedNetwork] = field(factory=dict)
    """By id."""
    endpoints: Mapping[str, tuple[str, str]] = field(factory=dict)
    """By id: the network and the container's name; only in networks that we know."""


def unknown_to_us(
    snapshot: EngineSnapshot, registry: Registry, driver_names: Iterable[str]
) -> UnknownObjects:
    """
    :param driver_names: names by which the engine knows us; a managed plugin has a tag, as in ``NAME:TAG``.
    """
    listed = snapshot.networks or {}
    ours = {*driver_names, *(each.driver for id_, each in listed.items() if id_ in registry.networks)}
    return UnknownObjects(
        {
            id_: each
            for id_, each in listed.items()
            if id_ not in registry.networks and (each.driver in ours or each.driver.split(":")[0] in ours)
        },
        {
            id_: (network_id, name)
            for network_id, endpoints in snapshot.endpoints.items()
            if network_id in registry.networks
            for id_, name in endpoints.items()
            if id_ not in registry.endpoints
        },
    )
