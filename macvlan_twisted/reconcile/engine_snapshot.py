"""What the engine says, in one look, and what it says of things that we do not know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import field, frozen

from ..driver.models import Endpoint
from ..driver.registry import Registry
from ..engine.client import EngineError, EngineUnavailable, Inventory, ListedNetwork

Networks = Mapping[str, ListedNetwork]


@frozen
class EngineSnapshot:
    """What an engine said of itself; empty if none answered."""

    networks: Networks | None = None
    """By id; ``None`` if no engine answered."""
    endpoints: Mapping[str, Mapping[str, str]] = field(factory=dict)
    """By network: the containers' names by endpoint. Networks of which the engine says nothing are not there."""
    engine_id: str = ""
    """
    Of the engine's network ``none``, which is made once, in the store where it keeps all of them, and is never removed.
    The id that ``docker info`` shows may outlive that store: of a data root whose disk is not mounted, say.
    """
    silence: str = ""
    """Why it does not answer."""

    def lists(self, endpoint: Endpoint) -> bool | None:
        """``None``: it does not say; it is another one's, perhaps."""
        listed = self.endpoints.get(endpoint.network_id)
        return None if listed is None else endpoint.endpoint_id in listed


async def take_snapshot(engine: Inventory, registry: Registry) -> EngineSnapshot:
    """Ask an engine for its networks, and for the endpoints of those that we know."""
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
        return EngineSnapshot(silence=str(failure))
    nones = [id_ for id_, each in networks.items() if (each.name, each.driver) == ("none", "null")]
    return EngineSnapshot(networks, endpoints, nones[0] if len(nones) == 1 else "")


@frozen
class UnknownObjects:
    """What an engine has of us, and we do not know: our state was lost, or an older one was put back."""

    networks: Mapping[str, ListedNetwork] = field(factory=dict)
    """By id."""
    endpoints: Mapping[str, tuple[str, str]] = field(factory=dict)
    """By id: the network, and the container's name; of networks that we know."""


def unknown_to_us(said: EngineSnapshot, registry: Registry, driver_names: Iterable[str]) -> UnknownObjects:
    """
    :param driver_names: those by which the engine knows us; a managed plugin's has a tag, as in ``NAME:TAG``.
    """
    listed = said.networks or {}
    ours = {*driver_names, *(each.driver for id_, each in listed.items() if id_ in registry.networks)}
    return UnknownObjects(
        {
            id_: each
            for id_, each in listed.items()
            if id_ not in registry.networks and (each.driver in ours or each.driver.split(":")[0] in ours)
        },
        {
            id_: (network_id, name)
            for network_id, endpoints in said.endpoints.items()
            if network_id in registry.networks
            for id_, name in endpoints.items()
            if id_ not in registry.endpoints
        },
    )
