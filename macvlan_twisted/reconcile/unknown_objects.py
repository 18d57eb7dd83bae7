"""Networks and endpoints of ours that an engine has and the state has not. They are reported, and stay."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen
from twisted.logger import Logger

from ..driver.registry import Registry
from ..engine.interfaces import ListedNetwork
from .engine_snapshot import EngineSnapshot

_log = Logger(namespace="macvlan_twisted.driver")


@frozen
class UnknownObjectsFound:
    """What an engine has of us that we do not know: our state was lost, or an older copy was restored."""

    networks: Mapping[str, ListedNetwork] = field(factory=dict)
    """By id."""
    endpoints: Mapping[str, tuple[str, str]] = field(factory=dict)
    """By id: the network and the container's name; only in networks that we know."""


class UnknownObjects:
    """
    Finds and reports them, each once.

    :param plugin_name: the name by which the engine knows us; a managed plugin has a tag, as in ``NAME:TAG``.
    """

    def __init__(self, registry: Registry, plugin_name: str) -> None:
        self._registry = registry
        self._plugin_name = plugin_name
        self._reported: set[str] = set()

    def find(self, snapshot: EngineSnapshot) -> UnknownObjectsFound:
        """Those that were not reported before."""
        listed = snapshot.networks or {}
        ours = {
            self._plugin_name,
            *(each.driver for id_, each in listed.items() if id_ in self._registry.networks),
        }
        return UnknownObjectsFound(
            {
                id_: each
                for id_, each in listed.items()
                if id_ not in self._reported
                and id_ not in self._registry.networks
                and (each.driver in ours or each.driver.split(":")[0] in ours)
            },
            {
                id_: (network_id, name)
                for network_id, endpoints in snapshot.endpoints.items()
                if network_id in self._registry.networks
                for id_, name in endpoints.items()
                if id_ not in self._registry.endpoints and id_ not in self._reported
            },
        )

    def report(self, found: UnknownObjectsFound) -> Mapping[str, int]:
        """
        Log what :meth:`find` has found.

        :return: how many networks and endpoints that were.
        """
        for id_, network in found.networks.items():
            # Cause: the state was lost, or an older copy was restored. Remedy: stop the plugin and
            # start it once with --recover.
            _log.error(
                "network {network} ({id}): in the engine but not in the state, so no container can start on it; stop the "
                "plugin and start it once with --recover",
                network=network.name,
                id=id_[:12],
            )
        for id_, (network_id, name) in found.endpoints.items():
            # Cause: the state was lost, or an older copy was restored. Remedy: restart the container,
            # or stop the plugin and start it once with --recover.
            _log.error(
                "container {container}: endpoint {endpoint} on network {network} is in the engine but not in the state; "
                "restart the container, or stop the plugin and start it once with --recover",
                endpoint=id_[:12],
                container=name,
                network=self._registry.names.network(network_id),
            )
        self._reported.update(found.networks, found.endpoints)
        return {"networks": len(found.networks), "endpoints": len(found.endpoints)}
