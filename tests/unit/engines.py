"""A fake engine for the reconciler and for container names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred

from macvlan_twisted.engine.interfaces import (
    EngineError,
    EngineEvent,
    EngineUnavailable,
    ListedAttachment,
    ListedNetwork,
)


@define
class Engine:
    """Lists what a test puts into it."""

    listed: dict[str, str] = field(factory=dict)
    """Container names by endpoint id, of all networks."""
    trouble: Exception | None = None
    asked: int = 0
    """Requests for endpoints so far."""
    has: dict[str, ListedNetwork] = field(factory=dict)
    """Its networks, by id."""
    id: str = "a" * 64
    """The id of its network ``none``; empty if it does not list that network."""
    runs: dict[str, list[ListedAttachment]] = field(factory=dict)
    """By container id: its networks."""
    lists: int = 0
    """Requests for containers so far."""
    starting: Deferred[None] | None = None
    """Until this fires it accepts connections, and does not answer."""
    tell: Callable[[EngineEvent], None] | None = None
    ended: Deferred[None] | None = None
    """Fires when the stream of events ends."""
    processes: dict[tuple[str, str], int] = field(factory=dict)
    """The containers' processes, by network and endpoint."""

    async def endpoints_of(self, network_id: str) -> Mapping[str, str]:
        self.asked += 1
        if self.trouble is not None:
            raise self.trouble
        if self.has and network_id not in self.has:
            raise EngineError(f"network {network_id} not found")
        return dict(self.listed)

    async def networks(self) -> Sequence[ListedNetwork]:
        if self.trouble is not None:
            raise self.trouble
        none = [ListedNetwork(self.id, "none", "null", "null")] if self.id else []
        return [*none, *self.has.values()]

    async def process_of(self, network_id: str, endpoint_id: str) -> int | None:
        if not self.processes:
            raise EngineUnavailable("no such file")
        return self.processes.get((network_id, endpoint_id))

    async def containers(self) -> Mapping[str, Sequence[ListedAttachment]]:
        if self.trouble is not None:
            raise self.trouble
        self.lists += 1
        return dict(self.runs)

    async def follow_events(self, on_event: Callable[[EngineEvent], None]) -> Deferred[None]:
        if self.starting is not None:
            await self.starting
        if self.trouble is not None:
            raise self.trouble
        self.tell, self.ended = on_event, Deferred()
        return self.ended

    def event(self, kind: str, action: str, object_id: str, container_id: str = "") -> None:
        """Tell whoever follows the events."""
        assert self.tell is not None
        self.tell(EngineEvent(kind, action, object_id, container_id))

    async def has_network(self, name: str) -> bool:
        raise EngineUnavailable("no such file")

    async def create_network(self, description: Mapping[str, Any]) -> str:
        raise EngineUnavailable("no such file")


def unavailable_engine() -> Engine:
    """Nobody answers on the engine's socket."""
    return Engine(trouble=EngineUnavailable("no such file"))
