"""An engine that says what a test tells it to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import define, field

from macvlan_twisted.engine.client import EngineError, ListedNetwork


@define
class Engine:
    """Lists what the test says."""

    listed: dict[str, str] = field(factory=dict)
    """The endpoints of all networks, each with its container's name."""
    trouble: Exception | None = None
    asked: int = 0
    """How often about endpoints."""
    has: dict[str, ListedNetwork] = field(factory=dict)
    """Its networks."""
    id: str = "a" * 64
    """Of its network ``none``; empty where it lists none."""

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
