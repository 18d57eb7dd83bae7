"""The networks and endpoints of this host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

from ..addresses import IPAddress
from ..display_names import DisplayNames
from ..errors import NotFound
from ..lan.host_link import HostLink
from ..link_names import endpoint_link_name, instance_prefix, probe_link_name
from ..netlink.kernel import Marked
from ..netlink.links import GROUPS
from ..state.interfaces import HostRecords, RecordKind
from ..state.serialize import from_document, to_document
from .models import Endpoint, MadeLink, Network

T = TypeVar("T")


class Registry:
    """
    Networks and endpoints, and the links that were made for them. Memory is changed in the reactor's thread only; the
    ``store`` and ``erase`` methods change the rows on disk.
    """

    def __init__(self, records: HostRecords) -> None:
        self._records = records
        self.names = DisplayNames()
        self._networks: dict[str, Network] = {}
        self.made_links: dict[str, MadeLink] = {}
        """VLANs and dummy links that we made; only :class:`~macvlan_twisted.driver.parents.Parents` changes it."""
        self.host_links: dict[str, HostLink] = {}
        """Our own links by parent; only :class:`~macvlan_twisted.lan.host_link.HostLinks` changes it."""
        self.in_creation: set[str] = set()
        """Ids of networks whose creation is under way."""
        self._endpoints: dict[str, Endpoint] = {}
        self._by_mac: dict[tuple[str, str], list[str]] = {}
        """Endpoints by parent and MAC, the latest last: two while it is found out whether the first one is alive."""
        self._of_network: dict[str, set[str]] = {}
        self.changes = 0
        """How often networks have come or gone."""

    def load(self) -> None:
        """
        Read the state at start.

        :raises StateError: a row cannot be understood.
        """
        self._networks.update(self._documents(RecordKind.NETWORK, Network))
        self.made_links.update(self._documents(RecordKind.MADE_LINK, MadeLink))
        self.host_links.update(self._documents(RecordKind.HOST_LINK, HostLink))
        for endpoint in self._documents(RecordKind.ENDPOINT, Endpoint).values():
            self.add_endpoint(endpoint)

    def _documents(self, kind: RecordKind, model: type[T]) -> dict[str, T]:
        return {
            key: from_document(model, document) for key, document in self._records.documents(kind).items()
        }

    @property
    def instance(self) -> str:
        """The state directory's random name, which the aliases of our links carry."""
        return self._records.instance

    def owns(self, link: Marked) -> bool:
        """
        Whether *link* is ours: what we did not make is never touched. Its alias proves it. A crash may fall between its
        creation and its alias; then its name, its group and a row in the state prove it.
        """
        if link.alias.startswith(instance_prefix(self._records.instance)):
            return True
        first = self._records.link_group
        if link.alias or link.group not in range(first, first + GROUPS):
            return False
        return (
            link.name in self.made_links
            or any(each.name == link.name for each in self.host_links.values())
            or any(endpoint_link_name(each) == link.name for each in self._endpoints)
            or any(probe_link_name(each) == link.name for each in self._networks)
        )

    async def store_network(self, network: Network) -> None:
        await self._records.save(RecordKind.NETWORK, network.network_id, to_document(network))

    async def erase_network(self, network_id: str) -> None:
        await self._records.erase(RecordKind.NETWORK, network_id)

    async def store_endpoint(self, endpoint: Endpoint) -> None:
        await self._records.save(RecordKind.ENDPOINT, endpoint.endpoint_id, to_document(endpoint))

    async def erase_endpoint(self, endpoint_id: str) -> None:
        await self._records.erase(RecordKind.ENDPOINT, endpoint_id)

    async def store_made_link(self, link: MadeLink) -> None:
        await self._records.save(RecordKind.MADE_LINK, link.name, to_document(link))

    async def erase_made_link(self, name: str) -> None:
        await self._records.erase(RecordKind.MADE_LINK, name)

    @property
    def networks(self) -> Mapping[str, Network]:
        return self._networks

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        return self._endpoints

    def network(self, network_id: str) -> Network:
        """
        :raises NotFound: with what may have happened to it.
        """
        try:
            return self._networks[network_id]
        except KeyError:
            raise NotFound(
                f"network {network_id[:12]} is not known to the plugin (its state was lost, or another "
                "plugin created it): remove the network and create it again, or stop the plugin and start it "
                "once with --recover"
            ) from None

    def endpoint(self, endpoint_id: str) -> Endpoint:
        try:
            return self._endpoints[endpoint_id]
        except KeyError:
            raise NotFound(
                f"endpoint {endpoint_id[:12]} is not known to the plugin: restart the container"
            ) from None

    def others(self, network_id: str) -> Iterator[Network]:
        return (each for each in self._networks.values() if each.network_id != network_id)

    def add_network(self, network: Network) -> None:
        self._networks[network.network_id] = network
        self.changes += 1

    def remove_network(self, network_id: str) -> None:
        self._networks.pop(network_id, None)
        self.names.forget_network(network_id)
        self.changes += 1

    def add_endpoint(self, endpoint: Endpoint) -> None:
        self._endpoints[endpoint.endpoint_id] = endpoint
        self._of_network.setdefault(endpoint.network_id, set()).add(endpoint.endpoint_id)
        if endpoint.mac is not None:
            self._by_mac.setdefault((endpoint.parent, endpoint.mac), []).append(endpoint.endpoint_id)

    def replace_endpoint(self, endpoint: Endpoint) -> None:
        """More is known of it now, or it has changed."""
        if self._endpoints.get(endpoint.endpoint_id) != endpoint:
            self._remove_endpoint(endpoint.endpoint_id)
            self.add_endpoint(endpoint)

    def remove_endpoint(self, endpoint_id: str) -> None:
        self._remove_endpoint(endpoint_id)
        self.names.forget_endpoint(endpoint_id)

    def _remove_endpoint(self, endpoint_id: str) -> None:
        endpoint = self._endpoints.pop(endpoint_id, None)
        if endpoint is None:
            return
        siblings = self._of_network[endpoint.network_id]
        siblings.discard(endpoint_id)
        if not siblings:
            del self._of_network[endpoint.network_id]
        if endpoint.mac is not None:
            holders = self._by_mac[endpoint.parent, endpoint.mac]
            holders.remove(endpoint_id)
            if not holders:
                del self._by_mac[endpoint.parent, endpoint.mac]

    def endpoints_of(self, network_id: str) -> list[Endpoint]:
        return [self._endpoints[each] for each in self._of_network.get(network_id, ())]

    def user_of(self, parent: str, address: IPAddress) -> str:
        """The container with *address* on *parent*, as log lines name it."""
        for endpoint in self._endpoints.values():
            if endpoint.parent == parent and address in endpoint.known_addresses:
                return self.names.endpoint(endpoint.endpoint_id)
        return "a container"

    def holders_of_mac(self, parent: str, mac: str) -> list[Endpoint]:
        """Our endpoints on *parent* that have *mac*, the latest last: more than one where the engine has forgotten some."""
        return [self._endpoints[each] for each in self._by_mac.get((parent, mac), ())]

    def holder_of_mac(self, parent: str, mac: str) -> Endpoint | None:
        """Our endpoint on *parent* that has *mac*."""
        holders = self._by_mac.get((parent, mac))
        return None if holders is None else self._endpoints[holders[-1]]
