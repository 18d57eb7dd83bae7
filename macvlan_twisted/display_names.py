"""The names that users know: of containers and networks, for log lines."""

from __future__ import annotations

from attrs import define, field


@define
class DisplayNames:
    """
    Docker does not send names to a network driver. Engine 29 sends a container's name to the IPAM driver, and an engine that is
    asked in the background lists both. Where a name is unknown, a log line has the short id, as the ``docker`` command shows it.
    """

    networks: dict[str, str] = field(factory=dict)
    """By id."""
    containers: dict[str, str] = field(factory=dict)
    """By endpoint id."""
    _requested: dict[tuple[str, int], str] = field(factory=dict)
    """By pool id and address: the container that an address was allocated for, until its endpoint is known."""

    def network(self, network_id: str) -> str:
        return self.networks.get(network_id, network_id[:12])

    def endpoint(self, endpoint_id: str) -> str:
        """The endpoint as the subject of a log line."""
        name = self.containers.get(endpoint_id)
        return f"container {name}" if name else f"endpoint {endpoint_id[:12]}"

    def fields(self, endpoint_id: str, network_id: str) -> dict[str, str]:
        """What log lines about an endpoint have in common."""
        name = self.containers.get(endpoint_id)
        return {
            "subject": self.endpoint(endpoint_id),
            "endpoint": endpoint_id[:12],
            "network": self.network(network_id),
            **({"container": name} if name else {}),
        }

    def address_requested(self, pool_id: str, number: int, container: str) -> None:
        """Address management has allocated the address for *container*; empty if the engine does not send the name."""
        if container:
            self._requested[pool_id, number] = container
        else:
            self._requested.pop((pool_id, number), None)

    def endpoint_requested(self, endpoint_id: str, pool_id: str, number: int) -> None:
        """The endpoint has the address."""
        container = self._requested.pop((pool_id, number), "")
        if container:
            self.containers[endpoint_id] = container

    def address_released(self, pool_id: str, number: int) -> None:
        """Succeeds when it had no name, or its endpoint is known."""
        self._requested.pop((pool_id, number), None)

    def forget_endpoint(self, endpoint_id: str) -> None:
        self.containers.pop(endpoint_id, None)

    def forget_network(self, network_id: str) -> None:
        self.networks.pop(network_id, None)

    def forget_pool(self, pool_id: str) -> None:
        for key in [each for each in self._requested if each[0] == pool_id]:
            del self._requested[key]
