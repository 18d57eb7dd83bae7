"""An endpoint's link in the kernel."""

from __future__ import annotations

import errno

from ..errors import LinkError
from ..link_names import alias_of
from ..netlink.kernel import MacvlanLink
from ..netlink.links import Links
from ..option_values import MacvlanMode
from .kernel_errors import explained, mac_in_use
from .models import Endpoint, Network
from .parents import Parents
from .registry import Registry


class MacvlanLinks:
    """:param instance: whose links they are."""

    def __init__(self, registry: Registry, links: Links, parents: Parents, instance: str) -> None:
        self._registry = registry
        self._links = links
        self._parents = parents
        self._instance = instance

    async def make(self, endpoint: Endpoint, network: Network, forgotten: Endpoint | None) -> None:
        """
        :param forgotten: another endpoint with the MAC, of which the kernel is to say whether it is alive.
        :raises Refused: the MAC is in use, or the parent carries no more links.
        """
        if network.mode == MacvlanMode.PASSTHRU:
            await self._links.deletions_finished()
        # A MAC that a user chose may be in use by links that we cannot see. One that we derived is so only where
        # the address is, too; proving it would cost every start a grace period of the kernel.
        named_by_user = endpoint.mac is not None and not endpoint.mac_generated
        prove = network.mode != MacvlanMode.PASSTHRU and (named_by_user or forgotten is not None)
        try:
            await self.add(endpoint, network, prove)
        except LinkError as failure:
            if failure.errno == errno.EADDRINUSE and forgotten is not None:
                raise mac_in_use(forgotten) from None  # alive, with its link in a container
            others = [each for each in self._registry.endpoints_of(network.network_id) if each != endpoint]
            raise explained(failure, network, endpoint.mac, others) from None

    async def add(self, endpoint: Endpoint, network: Network, prove_mac_free: bool) -> None:
        """:raises LinkError: as the kernel says it."""
        port = self._port(endpoint, network)
        try:
            await self._links.add_macvlan(port, prove_mac_free)
        except LinkError as failure:
            if failure.errno != errno.ENODEV:
                raise
            # The VLANs that we made go with their NIC; it may be back since a moment ago.
            await self._parents.restore(network)
            await self._links.add_macvlan(port, prove_mac_free)

    def _port(self, endpoint: Endpoint, network: Network) -> MacvlanLink:
        return network.port(
            endpoint.link,
            self._links.group,
            alias_of(self._instance, "endpoint", endpoint.endpoint_id),
            # In passthru the engine sets the MAC itself, in the container; here it would be the NIC's at once.
            None if network.mode == MacvlanMode.PASSTHRU else endpoint.mac,
        )
