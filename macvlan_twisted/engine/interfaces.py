"""What is asked of Docker Engine, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred

from ..addresses import IPAddress, IPNetwork


class EngineUnavailable(Exception):
    """Nobody answers on the engine's socket."""


class EngineDown(EngineUnavailable):
    """No engine runs: its socket is not there, or nobody listens on it."""


class EngineError(Exception):
    """The engine answered with an error, whose text this is, or with something unexpected."""


class Engine(Protocol):
    """What :mod:`macvlan_twisted.engine.default_network` needs from an engine."""

    async def has_network(self, name: str) -> bool: ...

    async def create_network(self, description: Mapping[str, Any]) -> str:
        """:return: the id of the new network."""


class Listing(Protocol):
    """Lists the containers of networks."""

    async def endpoints_of(self, network_id: str) -> Mapping[str, str]:
        """
        :return: container names by endpoint id, of running containers.
        :raises EngineUnavailable: no engine answers.
        :raises EngineError: the engine has no such network.
        """


@frozen
class ListedNetwork:
    """A network in the engine's list."""

    network_id: str
    name: str
    driver: str
    ipam_driver: str
    subnets: tuple[IPNetwork, ...] = ()


class Inventory(Listing, Protocol):
    """Lists networks as well, to find out what the engine has silently dropped; errors as in :class:`Listing`."""

    async def networks(self) -> Sequence[ListedNetwork]:
        """All networks, those of other drivers included; of a swarm's only those that this node has."""


class Processes(Protocol):
    """Finds the processes of containers; errors as in :class:`Listing`."""

    async def process_of(self, network_id: str, endpoint_id: str) -> int | None:
        """:return: the process id of the running container with that endpoint, or ``None``."""


@frozen
class ListedAttachment:
    """A container on a network."""

    network: str
    """The network's id, or what the user called it if the container has not run on it yet."""
    endpoint_id: str = ""
    """Empty while the container does not run."""
    asked: tuple[IPAddress, ...] = ()
    """What the user gave it by ``--ip`` and ``--ip6``."""
    container: str = ""
    """The container's name."""


@frozen
class EngineEvent:
    """Something that has happened to a container or a network."""

    kind: str
    """``container`` or ``network``"""
    action: str
    """``create``, ``start``, ``die`` or ``destroy``; of a network also ``connect`` or ``disconnect``"""
    object_id: str
    container_id: str = ""
    """Which container a network connects or disconnects."""


class Containers(Inventory, Protocol):
    """Lists and follows all containers; errors as in :class:`Listing`."""

    async def containers(self) -> Mapping[str, Sequence[ListedAttachment]]:
        """By id: the networks of each container, running or not. The engine answers also while it starts one."""

    async def follow_events(self, on_event: Callable[[EngineEvent], None]) -> Deferred[None]:
        """
        Call *on_event* with each event from now on.

        :return: fires when the engine ends the stream; cancelled, it ends it.
        :raises EngineDown: no engine runs.
        """
