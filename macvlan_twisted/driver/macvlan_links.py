"""The macvlan links in the kernel: an endpoint's own, and the one by which a network is tried out."""

from __future__ import annotations

import errno

from twisted.logger import Logger

from ..errors import LinkError, NotFound
from ..link_names import alias_of, endpoint_link_name, probe_link_name
from ..netlink.kernel import MacvlanLink
from ..netlink.links import Links
from ..option_values import MacvlanMode
from .kernel_errors import explained, mac_in_use
from .models import Endpoint, Network
from .parents import Parents
from .registry import Registry
from .validation import refuse_ignored_options

_log = Logger(namespace="macvlan_twisted.driver")

_NEVER_SHOWN = (errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.EACCES)
"""What a kernel before 5.0 answers, or one that does not let us see links in other namespaces."""


class MacvlanLinks:
    """Makes, finds and removes them."""

    def __init__(self, registry: Registry, links: Links, parents: Parents) -> None:
        self._registry = registry
        self._links = links
        self._parents = parents

    def exists(self, endpoint: Endpoint) -> bool:
        """Whether the endpoint's link is in the host's namespace; in a container it is out of sight."""
        return self._links.exists(endpoint.link)

    async def is_in_container(self, endpoint: Endpoint) -> bool:
        """
        Whether the kernel shows the endpoint's link in another namespace. Before 5.0 it shows none.

        :raises LinkError: the kernel does not show them this time.
        """
        if self.exists(endpoint):
            return False
        marks = await self.marks_elsewhere()
        return marks is not None and self.is_among(endpoint, marks)

    async def marks_elsewhere(self) -> frozenset[str] | None:
        """
        The aliases and the MACs of all links in other namespaces; ``None`` if this kernel never shows them to us.

        :raises LinkError: the kernel does not show them this time. What the engine lists is not enough then.
        """
        try:
            links = await self._links.elsewhere()
        except LinkError as failure:
            if failure.errno not in _NEVER_SHOWN:
                raise
            _log.debug("links in other network namespaces: cannot be listed ({reason})", reason=str(failure))
            return None
        return frozenset(mark for link in links for mark in (link.alias, link.mac) if mark)

    def is_among(self, endpoint: Endpoint, marks: frozenset[str]) -> bool:
        """Root in a container may change the alias or the MAC of its link, but hardly both by mistake."""
        return (
            alias_of(self._registry.instance, "endpoint", endpoint.endpoint_id) in marks
            or endpoint.mac in marks
        )

    def refuse_absent(self, endpoint: Endpoint) -> None:
        """
        :raises NotFound: the endpoint's link is not in the host's namespace, with the reason.
        """
        if self.exists(endpoint):
            return
        if not self._links.exists(endpoint.parent):
            raise NotFound(self._parents.status.why_absent(endpoint.parent))
        raise NotFound(
            f"link {endpoint.link} of endpoint {endpoint.short_id} is gone from the host: start the "
            "container again"
        )

    async def restore_parent(self, network: Network) -> None:
        """
        Make the VLANs or the dummy link again if something was wrong with the parent.

        :raises MacvlanError: it cannot be used.
        """
        if self._parents.status.is_in_doubt(network.parent):
            await self._parents.restore(network)

    async def make(self, endpoint: Endpoint, network: Network, forgotten: Endpoint | None) -> None:
        """
        :param forgotten: another endpoint with the same MAC; the kernel decides whether it is alive.
        :raises RequestRefused: the MAC is in use, or the parent takes no more links.
        """
        if network.mode == MacvlanMode.PASSTHRU:
            await self._links.deletions_finished()
        # A link that we cannot see may have a MAC that a user chose. A generated MAC is in use only if its address is, and
        # proving it free would cost every start a grace period of the kernel.
        named_by_user = endpoint.mac is not None and not endpoint.mac_generated
        prove = network.mode != MacvlanMode.PASSTHRU and (named_by_user or forgotten is not None)
        try:
            await self._add(endpoint, network, prove)
        except LinkError as failure:
            if failure.errno == errno.EADDRINUSE and forgotten is not None:
                raise mac_in_use(
                    forgotten, self._registry.names
                ) from None  # alive, with its link in a container
            others = [each for each in self._registry.endpoints_of(network.network_id) if each != endpoint]
            raise explained(failure, network, self._registry.names, endpoint.mac, others) from None

    async def make_again(self, endpoint: Endpoint, network: Network) -> bool:
        """
        :return: ``False`` if the endpoint's link lives in a container.
        :raises MacvlanError: the kernel refuses.
        """
        try:
            await self._add(endpoint, network, network.mode != MacvlanMode.PASSTHRU)
        except LinkError as failure:
            if failure.errno == (errno.EINVAL if network.mode == MacvlanMode.PASSTHRU else errno.EADDRINUSE):
                return False
            raise explained(failure, network, self._registry.names, endpoint.mac, []) from None
        return True

    async def _add(self, endpoint: Endpoint, network: Network, prove_mac_free: bool) -> None:
        link = network.macvlan_link(
            endpoint.link,
            self._links.group,
            alias_of(self._registry.instance, "endpoint", endpoint.endpoint_id),
            # In passthru the engine sets the MAC in the container. Here it would change the NIC's at once.
            None if network.mode == MacvlanMode.PASSTHRU else endpoint.mac,
        )
        try:
            await self._links.add_macvlan(link, prove_mac_free)
        except LinkError as failure:
            if failure.errno != errno.ENODEV:
                raise
            # The VLANs that we made disappear with their NIC; it may have just come back.
            await self._parents.restore(network)
            await self._links.add_macvlan(link, prove_mac_free)

    async def retire(self, endpoint: Endpoint, network: Network | None) -> bool:
        """
        Remove the endpoint's link soon; in mode passthru at once, since the next container needs its place.

        :return: ``False`` if it is not in the host's namespace.
        :raises LinkError: the kernel refuses.
        """
        try:
            return await self._links.retire(endpoint.link)
        finally:
            if network is not None and network.mode == MacvlanMode.PASSTHRU:
                await self._links.deletions_finished()

    async def retire_unknown(self, endpoint_id: str) -> str:
        """
        Remove the link of an endpoint that has no row, which its name identifies.

        :return: the link's name, or nothing if there is none of ours.
        """
        name = endpoint_link_name(endpoint_id)
        if self._links.exists(name):
            link = await self._links.find(name)
            if link is not None and self._links.is_ours(link):
                await self._links.retire(name)
                return name
        return ""

    async def deletions_finished(self) -> None:
        await self._links.deletions_finished()

    async def try_out(self, network: Network) -> None:
        """
        Make one link as the network's containers will have it, read it back, and remove it. The kernel ignores attributes
        that it does not know, and so does pyroute2.

        :raises MacvlanError: the kernel cannot do what the network's options ask for.
        """
        wanted = network.macvlan_link(
            probe_link_name(network.network_id),
            self._links.group,
            alias_of(self._registry.instance, "trial", network.network_id),
            None,
        )
        if network.mode == MacvlanMode.PASSTHRU:
            await self._links.deletions_finished()
        try:
            await self._links.add_macvlan(wanted)
        except LinkError as failure:
            if failure.errno == errno.ENODEV:
                # Remedy: when it is back, create the network or start the container again.
                raise LinkError(
                    f"parent {network.parent} has just disappeared: create the network again when it is back",
                    errno.ENODEV,
                ) from None
            raise explained(failure, network, self._registry.names) from None
        found: MacvlanLink | None
        try:
            found = await self._links.read_macvlan(wanted.name)
        finally:
            await self._links.dispose(wanted.name)
        if found is None:
            raise LinkError(
                f"probe link of network {network.network_id[:12]} was removed by another program: try again"
            )
        refuse_ignored_options(wanted, found)
