"""A fake engine for the reconciler and for container names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import define, field

from macvlan_twisted.engine.client import EngineError, ListedNetwork


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
