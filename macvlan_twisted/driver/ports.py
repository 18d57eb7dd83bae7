"""An endpoint's link in the kernel."""

from __future__ import annotations

import errno

from ..errors import LinkFailed
from ..links.interface import Port
from ..links.pool import Links
from ..names import alias_of
from .explanations import explained, mac_in_use
from .known import Known
from .network import Endpoint, Network
from .parents import Parents


class Ports:
    """:param instance: whose links they are."""

    def __init__(self, known: Known, links: Links, parents: Parents, instance: str) -> None:
        self._known = known
        self._links = links
        self._parents = parents
        self._instance = instance

    async def make(self, endpoint: Endpoint, network: Network, forgotten: Endpoint | None) -> None:
        """
        :param forgotten: another endpoint with the MAC, of which the kernel is to say whether it is alive.
        :raises Refused: the MAC is in use, or the parent carries no more links.
        """
        if network.mode == "passthru":
            await self._links.reaped()
        # A MAC that a user chose may be in use by links that we cannot see. One that we derived is so only where
        # the address is, too; proving it would cost every start a grace period of the kernel.
        named_by_user = endpoint.mac is not None and not endpoint.mac_is_ours
        prove = network.mode != "passthru" and (named_by_user or forgotten is not None)
        try:
            await self.add(endpoint, network, prove)
        except LinkFailed as failure:
            if failure.errno == errno.EADDRINUSE and forgotten is not None:
                raise mac_in_use(forgotten) from None  # alive, with its link in a container
            others = [each for each in self._known.endpoints_of(network.network_id) if each != endpoint]
            raise explained(failure, network, endpoint.mac, others) from None

    async def add(self, endpoint: Endpoint, network: Network, prove_mac_free: bool) -> None:
        """:raises LinkFailed: as the kernel says it."""
        port = self._port(endpoint, network)
        try:
            await self._links.add_port(port, prove_mac_free)
        except LinkFailed as failure:
            if failure.errno != errno.ENODEV:
                raise
            # The VLANs that we made go with their NIC; it may be back since a moment ago.
            await self._parents.restore(network)
            await self._links.add_port(port, prove_mac_free)

    def _port(self, endpoint: Endpoint, network: Network) -> Port:
        return network.port(
            endpoint.link,
            self._links.group,
            alias_of(self._instance, "endpoint", endpoint.endpoint_id),
            # In passthru the engine sets the MAC itself, in the container; here it would be the NIC's at once.
            None if network.mode == "passthru" else endpoint.mac,
        )
