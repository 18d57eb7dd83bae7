"""Containers as an Engine 29 sees them: their endpoints, and which of them has the default route."""

from __future__ import annotations

from enum import Enum, auto
from typing import Any

from attrs import define, field

from .engine_networks import Network, Pool

Json = dict[str, Any]


class Failure(Enum):
    """Where the engine pretends a failure after a good reply of the plugin."""

    CREATE_ENDPOINT_REPLY_UNUSABLE = auto()
    JOIN = auto()
    JOIN_REPLY_UNUSABLE = auto()
    MOVING_THE_LINK = auto()
    PROGRAM_EXTERNAL_CONNECTIVITY = auto()


class StartFailed(Exception):
    """The container did not start; the engine has rolled back."""


@define(eq=False)
class Endpoint:
    """One container's place in one network."""

    endpoint_id: str
    network: Network
    addresses: list[tuple[Pool, str]] = field(factory=list)
    mac: str = ""
    link: str = ""
    gateway: str = ""
    gateway_v6: str = ""
    has_link: bool = False

    @property
    def can_be_default_gateway(self) -> bool:
        """Only then does the engine call Program/RevokeExternalConnectivity."""
        return not self.network.internal and bool(self.gateway or self.gateway_v6)

    @property
    def about(self) -> Json:
        """The body of most calls."""
        return {"NetworkID": self.network.network_id, "EndpointID": self.endpoint_id}


@define(eq=False)
class Container:
    """A running container."""

    name: str
    sandbox_key: str
    endpoints: list[Endpoint] = field(factory=list)
    #: The endpoint with the default route; None once a live-restored engine has forgotten which it was.
    programmed: Endpoint | None = None

    def sorted_endpoints(self) -> list[Endpoint]:
        """The default gateway's first, the others by the name of their network."""
        return sorted(self.endpoints, key=_precedence)


def _precedence(endpoint: Endpoint) -> tuple[bool, str]:
    return not endpoint.can_be_default_gateway, endpoint.network.name
