"""Calls of an engine under way side by side on the fakes, and what must hold of them at any time: the interleavings."""

from __future__ import annotations

from collections import Counter

from attrs import define

from macvlan_twisted.addresses import IPAddress, parse_network
from macvlan_twisted.driver import requests
from macvlan_twisted.driver.models import Subnet
from macvlan_twisted.ipam.requests import Purpose, ReleaseAddress, RequestAddress, RequestPool
from macvlan_twisted.link_names import endpoint_link_name
from macvlan_twisted.state.interfaces import RecordKind

from .helpers import PLAIN_LINKS
from .interleaved_calls import EngineCalls
from .interleaved_world import MOST_AT_ONCE, PLACES, SPACE, Place


@define(eq=False)
class Interleaved(EngineCalls):
    """An engine that has up to 64 calls under way at once, with steps held back, refused and let go in any order."""

    def check(self) -> None:
        """At any time."""
        assert self.bugs == [], "\n".join(self.bugs)
        kernel, registry = self.plugin.kernel, self.plugin.registry
        rows = self.plugin.records.documents(RecordKind.ENDPOINT)
        for key in self.endpoints:
            may_be = self.history.may_be(("endpoint", key))
            link = endpoint_link_name(key)
            if may_be == {True}:
                assert key in rows, f"{key} was acknowledged, and has no row"
                assert key in registry.endpoints, f"{key} was acknowledged, and is not known"
                assert kernel.exists(link) or key in self.away or key in self.dead, f"{key} has no link"
            elif may_be == {False}:
                assert key not in rows, f"{key} was removed, or never made, and has a row"
                assert key not in registry.endpoints, f"{key} was removed, or never made, and is known"
        networks = self.plugin.records.documents(RecordKind.NETWORK)
        for place in PLACES:
            may_be = self.history.may_be(("network", place.network_id))
            if may_be == {True}:
                assert place.network_id in registry.networks, f"network {place.number} is not known"
                assert networks[place.network_id]["is_made"], f"network {place.number} is half made"
            elif may_be == {False}:
                assert place.network_id not in networks, f"network {place.number} has a row"
                assert place.network_id not in registry.networks, f"network {place.number} is known"
        self._check_addresses()
        self._check_macs()
        assert self.plugin.link_names() >= PLAIN_LINKS, "a NIC is gone"

    def _check_addresses(self) -> None:
        store = self.plugin.store
        for thing in self.history.things("pool"):
            may_be = self.history.may_be(thing)
            assert len(may_be) > 1 or (thing[1] in store.open) == may_be.pop(), thing
        asking = {call.about for call in self.under_way if call.what == "RequestAddress"} | self.muddled
        for thing in self.history.things("claim"):
            if self.history.surely_there(thing):
                assert thing[1:] in store.claimed, f"{thing} was granted, and is not on disk"
            elif self.history.surely_gone(thing) and thing[1] not in asking:
                claim = store.claimed.get(thing[1:])
                # The host may have it now: its address is taken in all pools of the network's shared set.
                is_free = claim is None or claim.purpose == Purpose.HOST.value
                assert is_free, f"{thing} was released, and is on disk"
        owners: dict[tuple[str, IPAddress], str] = {}
        for (pool_id, address), claim in store.claimed.items():
            parent = str(store.open[pool_id]["parent"])
            if claim.purpose == Purpose.ENDPOINT.value:
                assert (parent, address) not in owners, f"{address} is taken twice on {parent}"
                owners[parent, address] = pool_id
        for (pool_id, address), claim in store.claimed.items():
            if claim.purpose != Purpose.ENDPOINT.value:
                owner = owners.get((str(store.open[pool_id]["parent"]), address))
                assert owner is None, f"{address} is a container's, and a {claim.purpose} address"

    def _check_macs(self) -> None:
        plugin = self.plugin
        # A container whose address was given to another one has been forgotten by the engine, and is dead.
        alive = [facts for key, facts in self.away.items() if self.history.surely_there(("endpoint", key))]
        links = [*plugin.kernel.links(), *alive]
        # One of an endpoint that was dropped, which the engine has moved back, lies about until its removal is answered.
        registry = {endpoint.link for endpoint in plugin.registry.endpoints.values()}
        going = {
            endpoint_link_name(thing[1])
            for call in self.under_way
            for thing, deed in call.deeds
            if isinstance(thing, tuple) and thing[0] == "endpoint" and not deed.makes
        }
        ours = [
            link
            for link in links
            if link.name.startswith("mvt")
            and link.group == plugin.links.group
            and link.name not in going - registry
        ]
        macs = Counter((link.lower_index, link.mac) for link in ours)
        if not self.is_swept:  # a link whose removal the kernel has refused lies about, down
            return
        twice = [mac for mac, number in macs.items() if number > 1]
        assert twice == [], f"two links have {twice}"

    def check_settled(self) -> None:
        """When no call is under way."""
        self.check()
        plugin, registry, records = self.plugin, self.plugin.registry, self.plugin.records
        for locks in (
            plugin.removal.locks,
            plugin.networks._locks,
            plugin.parents._locks,
            plugin.pools._locks,
        ):
            assert locks._locks == {}, "somebody still has a turn"
        if not self.is_swept:
            return
        assert set(records.documents(RecordKind.ENDPOINT)) == set(registry.endpoints)
        assert set(records.documents(RecordKind.NETWORK)) == set(registry.networks)
        assert set(records.documents(RecordKind.MADE_LINK)) == set(registry.made_links)
        assert set(plugin.store.open) == set(plugin.pools._pools.by_id)
        needed = {step.link for network in registry.networks.values() for step in network.vlan_steps}
        assert set(registry.made_links) <= needed
        needed = {
            step.link
            for network in registry.networks.values()
            for step in network.vlan_steps
            if self.history.surely_there(("network", network.network_id))
        }
        assert set(registry.made_links) >= needed
        hosts = {link.name for link in registry.host_links.values()}
        expected = {
            *PLAIN_LINKS,
            *registry.made_links,
            *hosts,
            *(each.link for each in registry.endpoints.values()),
        }
        assert plugin.link_names() <= expected, f"left behind: {plugin.link_names() - expected}"
        missing = {each for each in registry.endpoints.values() if not plugin.kernel.exists(each.link)}
        unexplained = {each.endpoint_id for each in missing} - set(self.away) - self.dead
        unexplained = {key for key in unexplained if self.history.surely_there(("endpoint", key))}
        assert unexplained == set(), f"without a link: {unexplained}"
        assert needed <= plugin.link_names()

    def a_life_goes_well(self) -> None:
        """Whatever has happened, a network and a container can be made and removed."""
        for steps in self._all_steps():
            steps.hold = set()
        plugin, place = self.plugin, Place(99, "eth0", "10.7.0.0/24")
        pool = parse_network(place.subnet)
        pool_id = plugin.wait(plugin.pools.request_pool(RequestPool(SPACE, pool, None, {}))).pool_id
        plugin.wait(plugin.addresses.request_address(RequestAddress(pool_id, place.gateway, Purpose.GATEWAY)))
        plugin.create_network(place.network_id, subnets=(Subnet(pool, place.gateway, managed_here=True),))
        address = plugin.wait(plugin.addresses.request_address(RequestAddress(pool_id, None)))
        key = "f" * 64
        plugin.create_endpoint(key, place.network_id, str(address))
        plugin.wait(plugin.endpoints.join(requests.Join(place.network_id, key, "/s/f")))
        plugin.delete_endpoint(key, place.network_id)
        plugin.wait(plugin.addresses.release_address(ReleaseAddress(pool_id, address.ip)))
        plugin.wait(plugin.pools.release_pool(pool_id))
        plugin.delete_network(place.network_id)
        self._hold()

    def leave_nothing(self) -> None:
        """The engine removes all, whether it was made or not; then nothing is left."""
        self.settle()
        self.check_settled()
        self.a_life_goes_well()
        unknown = set(self.plugin.store.open) - set(self.pools)
        assert len(unknown) <= self.unknown_pools, f"pools that nobody asked for: {unknown}"
        if not self.is_swept:
            self.kill()
            self.check_settled()
        for key, (place, *_) in self.endpoints.items():
            self._delete_endpoint(key, requests.EndpointCall(place.network_id, key))
        for claim in self.history.things("claim"):
            self._release_address(claim)
        self.settle()
        for place in PLACES:
            self.delete_network(place)
        for pool_id in [*self.pools, *unknown]:
            self._release_pool(pool_id)
        self.settle()
        self.check_settled()
        plugin = self.plugin
        assert plugin.link_names() == PLAIN_LINKS, plugin.link_names() - PLAIN_LINKS
        assert plugin.records.all_rows() == {}, plugin.records.all_rows()
        assert (plugin.store.open, plugin.store.claimed) == ({}, {})
        assert (dict(plugin.registry.networks), dict(plugin.registry.endpoints)) == ({}, {})
        assert plugin.pools._pools._sets == {}


__all__ = ["MOST_AT_ONCE", "Interleaved"]
