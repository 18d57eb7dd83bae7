"""Calls that overlap in any order on the fakes, and what must hold at any time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

from attrs import define

from macvlan_twisted.addresses import IPAddress, parse_interface, parse_network
from macvlan_twisted.driver import requests
from macvlan_twisted.driver.models import Subnet
from macvlan_twisted.ipam.requests import Purpose, ReleaseAddress, RequestAddress, RequestPool
from macvlan_twisted.link_names import endpoint_link_name
from macvlan_twisted.state.interfaces import RecordKind

from .helpers import PLAIN_LINKS
from .interleavings_world import MACS, MOST_AT_ONCE, NETWORKS, SPACE, Effect, NetworkCase, World


@define(eq=False)
class Interleavings(World):
    """An engine with up to 64 calls under way at once, whose steps are held back, refused and let go in any order."""

    def begin_any(self) -> None:
        """Begin one call such as an engine might make now, or repeat."""
        if len(self.under_way) >= MOST_AT_ONCE:
            return
        weights: dict[Callable[[NetworkCase], None], int] = {
            self.request_pool: 4,
            self.create_network: 6,
            self.request_address: 10,
            self.create_endpoint: 14,
            self.join: 6,
            self.delete_endpoint: 10,
            self.release_address: 6,
            self.delete_network: 1,
            self.release_pool: 1,
        }
        network = self.random.choice(NETWORKS)
        (call,) = self.random.choices(list(weights), list(weights.values()))
        call(network)

    def request_pool(self, network: NetworkCase) -> None:
        if not network.is_ours or sum(each == network for each in self.pools.values()) >= 2:
            return
        part = None if network.part is None else parse_network(network.part)
        asked = RequestPool(SPACE, parse_network(network.subnet), part, {"parent": network.parent})

        def granted(pool: Any) -> None:
            if pool.pool_id in self.pools:
                self.faults.append(f"pool {pool.pool_id} was granted twice")
            self.pools[pool.pool_id] = network
            self.history.acknowledge(self.history.begin(("pool", pool.pool_id), True))

        self.begin("RequestPool", self.plugin.pools.request_pool(asked), [], granted)

    def create_network(self, network: NetworkCase) -> None:
        thing = ("network", network.network_id)
        subnets = (Subnet(parse_network(network.subnet), network.gateway, managed_here=network.is_ours),)
        options = {"parent": network.parent, **dict(network.options)}
        call = self.plugin.networks.create(
            requests.CreateNetwork(network.network_id, options, subnets=subnets)
        )
        side_effects: list[Effect] = []
        makes_anew = not self.history.surely_there(thing)
        if makes_anew:  # a failure removes its endpoints; an engine would not have created any yet
            side_effects = [self.history.begin(each, False) for each in self._endpoints_of(network)]
        effect = self.history.begin(thing, True)
        self.begin(
            "CreateNetwork",
            call,
            [(thing, effect)],
            about=network if makes_anew else None,
            side_effects=side_effects,
        )

    def _endpoints_of(self, network: NetworkCase) -> list[Hashable]:
        return [("endpoint", key) for key, (where, *_) in self.endpoints.items() if where == network]

    def delete_network(self, network: NetworkCase) -> None:
        things: list[Hashable] = [("network", network.network_id)]
        things += self._endpoints_of(network)
        effects = [(thing, self.history.begin(thing, False)) for thing in things]
        call = self.plugin.networks.delete(network.network_id)
        self.begin("DeleteNetwork", call, effects, deletes_network=network.network_id)

    def release_pool(self, network: NetworkCase) -> None:
        found = [pool_id for pool_id, where in self.pools.items() if where == network]
        if found:
            self._release_pool(self.random.choice(found))

    def _release_pool(self, pool_id: str) -> None:
        things: list[Hashable] = [("pool", pool_id)]
        things += [claim for claim in self.history.things("claim") if claim[1] == pool_id]
        effects = [(thing, self.history.begin(thing, False)) for thing in things]

        def released(_: Any) -> None:
            self.pools.pop(pool_id, None)
            self.uncertain_pools.discard(pool_id)

        self.begin("ReleasePool", self.plugin.pools.release_pool(pool_id), effects, released, about=pool_id)

    def request_address(self, network: NetworkCase) -> None:
        found = [pool_id for pool_id, where in self.pools.items() if where == network]
        if not found:
            return
        pool_id = self.random.choice(found)
        purpose, wanted, name = Purpose.ENDPOINT, None, self.random.choice(["", "", "a", "b"])
        if self.random.random() < 0.1:
            purpose, wanted, name = Purpose.GATEWAY, network.gateway, ""
        elif self.random.random() < 0.1:
            wanted = parse_network(network.subnet).network_address + self.random.randrange(64, 128)
        if not self.history.surely_gone(self.names.get((pool_id, name))):
            name = ""  # no two containers have one name
        asked = RequestAddress(pool_id, wanted, purpose, name)
        had_containers = pool_id in self.had_containers

        def granted(address: Any) -> None:
            thing = ("claim", pool_id, address.ip)
            saved_as = self._purpose(thing)
            if saved_as == Purpose.ENDPOINT.value:
                self.had_containers.add(pool_id)
                # Several networks may reserve a gateway or an auxiliary address; no container gets one.
                for other in self.history.things("claim"):
                    shares = other[2] == address.ip and other[1] in self.pools
                    if (
                        shares
                        and self.pools[other[1]].parent == network.parent
                        and self.history.surely_there(other)
                    ):
                        self.faults.append(f"{address} was handed out twice")
            elif purpose is Purpose.ENDPOINT:
                # An address that an engine names for no container, before the pool has any, counts as auxiliary.
                possible = wanted is not None and not name and not had_containers
                if saved_as != Purpose.AUXILIARY.value or not possible:
                    self.faults.append(f"{address} was requested for a container, and is saved as {saved_as}")
            self.history.acknowledge(self.history.begin(thing, True))
            if name:
                self.names[pool_id, name] = thing
            for each in self.under_way:
                if (each.what, each.about) == ("ReleasePool", pool_id):  # it goes with the pool
                    each.effects.append((thing, self.history.begin(thing, False)))

        self.begin("RequestAddress", self.plugin.addresses.request_address(asked), [], granted, about=pool_id)

    def _purpose(self, claim: tuple[str, str, IPAddress]) -> str:
        return self.plugin.store.allocated[claim[1], claim[2]].purpose

    def create_endpoint(self, network: NetworkCase) -> None:
        if self.endpoints and self.random.random() < 0.15:
            key = self.random.choice(list(self.endpoints))
            network, address, mac = self.endpoints[key]
        else:
            key = f"{len(self.endpoints) + 1:063x}e"
            address, mac = self._address(network), self.random.choice(MACS)
        thing = ("endpoint", key)
        length = parse_network(network.subnet).prefixlen
        asked = requests.CreateEndpoint(
            network.network_id, key, parse_interface(f"{address}/{length}"), None, mac
        )
        begun = self.history.begin(thing, True)
        self.endpoints[key] = (network, address, mac)
        for each in self.under_way:
            if each.deletes_network == network.network_id:
                each.effects.append((thing, self.history.begin(thing, False)))
            elif (each.what, each.about) == ("CreateNetwork", network) or (
                each.what == "CreateEndpoint" and each.about != key and self._clash(each.about, key)
            ):
                each.side_effects.append(self.history.begin(thing, False))
        # The driver drops endpoints with the same address or MAC: the engine may have forgotten them.
        side_effects = [
            self.history.begin(("endpoint", other), False)
            for other in self.endpoints
            if other != key and self._clash(other, key)
        ]
        call = self.plugin.endpoints.create(asked)
        self.begin("CreateEndpoint", call, [(thing, begun)], about=key, side_effects=side_effects)

    def _clash(self, one: str, other: str) -> bool:
        (network, address, mac), (where, its_address, its_mac) = self.endpoints[one], self.endpoints[other]
        return network.parent == where.parent and (
            address == its_address or (mac is not None and mac == its_mac)
        )

    def _address(self, network: NetworkCase) -> str:
        """An address that was allocated; now and then one in use."""
        if not network.is_ours:
            return str(parse_network(network.subnet).network_address + self.random.randrange(2, 200))
        granted = [
            str(claim[2])
            for claim in self.history.things("claim")
            if self.pools.get(claim[1]) == network
            and self.history.surely_there(claim)
            and claim[2] != network.gateway
        ]
        if not granted or self.random.random() < 0.05:
            return str(parse_network(network.subnet).network_address + self.random.randrange(2, 200))
        return self.random.choice(granted)

    def _endpoint(self) -> tuple[str, requests.EndpointCall] | None:
        if not self.endpoints:
            return None
        key = self.random.choice(list(self.endpoints)[-80:])
        return key, requests.EndpointCall(self.endpoints[key][0].network_id, key)

    def join(self, _network: NetworkCase) -> None:
        found = self._endpoint()
        if found is None:
            return
        key, about = found

        def joined(result: Any) -> None:
            link = endpoint_link_name(key)
            if result.link != link:
                self.faults.append(f"Join answered {result}")
            # An engine never has two calls about one endpoint under way, and moves the link only then.
            is_settled = self.history.surely_there(("endpoint", key))
            if is_settled and self.plugin.kernel.exists(link) and self.random.random() < 0.5:
                self.in_containers[key] = self.plugin.kernel.move_away(link, up=True)

        self.begin(
            "Join", self.plugin.joining.join(requests.Join(about.network_id, key, f"/s/{key}")), [], joined
        )
        if self.random.random() < 0.3:
            self.begin("EndpointOperInfo", self.plugin.endpoints.operational_info(about), [])

    def delete_endpoint(self, _network: NetworkCase) -> None:
        found = self._endpoint()
        if found is not None:
            self._delete_endpoint(*found)

    def _delete_endpoint(self, key: str, about: requests.EndpointCall) -> None:
        """The engine moves the link out of the sandbox first, or the kernel has deleted both."""
        if key in self.in_containers:
            facts = self.in_containers.pop(key)
            self.plugin.kernel.move_back(facts)
            if self.random.random() >= 0.7:
                self.plugin.kernel.delete(facts.name)
                self.destroyed.add(key)
        if self.random.random() < 0.3:
            self.begin("Leave", self.plugin.joining.leave(about), [])
        thing = ("endpoint", key)
        effect = self.history.begin(thing, False)
        self.begin("DeleteEndpoint", self.plugin.removal.delete(about), [(thing, effect)])

    def release_address(self, network: NetworkCase) -> None:
        found = [claim for claim in self.history.things("claim") if self.pools.get(claim[1]) == network]
        if found:
            self._release_address(self.random.choice(found))

    def _release_address(self, claim: tuple[str, str, IPAddress]) -> None:
        effect = self.history.begin(claim, False)
        call = self.plugin.addresses.release_address(ReleaseAddress(claim[1], claim[2]))
        self.begin("ReleaseAddress", call, [(claim, effect)])

    # Checks

    def check(self) -> None:
        """What must hold at any time."""
        assert self.faults == [], "\n".join(self.faults)
        kernel, registry = self.plugin.kernel, self.plugin.registry
        rows = self.plugin.records.documents(RecordKind.ENDPOINT)
        for key in self.endpoints:
            possible = self.history.possible(("endpoint", key))
            link = endpoint_link_name(key)
            if possible == {True}:
                assert key in rows, f"{key} was acknowledged, and has no row"
                assert key in registry.endpoints, f"{key} was acknowledged, and is not known"
                assert kernel.exists(link) or key in self.in_containers or key in self.destroyed, (
                    f"{key} has no link"
                )
            elif possible == {False}:
                assert key not in rows, f"{key} was removed, or never made, and has a row"
                assert key not in registry.endpoints, f"{key} was removed, or never made, and is known"
        networks = self.plugin.records.documents(RecordKind.NETWORK)
        for network in NETWORKS:
            possible = self.history.possible(("network", network.network_id))
            if possible == {True}:
                assert network.network_id in registry.networks, f"network {network.number} is not known"
                assert networks[network.network_id]["is_made"], f"network {network.number} is half made"
            elif possible == {False}:
                assert network.network_id not in networks, f"network {network.number} has a row"
                assert network.network_id not in registry.networks, f"network {network.number} is known"
        self._check_addresses()
        self._check_macs()
        assert self.plugin.link_names() >= PLAIN_LINKS, "a NIC is gone"

    def _check_addresses(self) -> None:
        store = self.plugin.store
        for thing in self.history.things("pool"):
            possible = self.history.possible(thing)
            assert len(possible) > 1 or (thing[1] in store.open) == possible.pop(), thing
        asking = {
            call.about for call in self.under_way if call.what == "RequestAddress"
        } | self.uncertain_pools
        for thing in self.history.things("claim"):
            if self.history.surely_there(thing):
                assert thing[1:] in store.allocated, f"{thing} was granted, and is not on disk"
            elif self.history.surely_gone(thing) and thing[1] not in asking:
                claim = store.allocated.get(thing[1:])
                # The host may have it now: its address is reserved in all pools of the shared set.
                is_free = claim is None or claim.purpose == Purpose.HOST.value
                assert is_free, f"{thing} was released, and is on disk"
        owners: dict[tuple[str, IPAddress], str] = {}
        for (pool_id, address), claim in store.allocated.items():
            parent = str(store.open[pool_id]["parent"])
            if claim.purpose == Purpose.ENDPOINT.value:
                assert (parent, address) not in owners, f"{address} is taken twice on {parent}"
                owners[parent, address] = pool_id
        for (pool_id, address), claim in store.allocated.items():
            if claim.purpose != Purpose.ENDPOINT.value:
                owner = owners.get((str(store.open[pool_id]["parent"]), address))
                assert owner is None, f"{address} is a container's, and a {claim.purpose} address"

    def _check_macs(self) -> None:
        plugin = self.plugin
        # A container whose address another one got has been forgotten by the engine, and is gone.
        alive = [
            facts for key, facts in self.in_containers.items() if self.history.surely_there(("endpoint", key))
        ]
        links = [*plugin.kernel.links(), *alive]
        # The link of a dropped endpoint, moved back by the engine, stays until the reply to its removal.
        registry = {endpoint.link for endpoint in plugin.registry.endpoints.values()}
        going = {
            endpoint_link_name(thing[1])
            for call in self.under_way
            for thing, effect in call.effects
            if isinstance(thing, tuple) and thing[0] == "endpoint" and not effect.makes
        }
        ours = [
            link
            for link in links
            if link.name.startswith("mvt")
            and link.group == plugin.links.group
            and link.name not in going - registry
        ]
        macs = Counter((link.lower_index, link.mac) for link in ours)
        if not self.is_clean:  # a link that the kernel refused to delete stays, down
            return
        twice = [mac for mac, number in macs.items() if number > 1]
        assert twice == [], f"two links have {twice}"

    def check_settled(self) -> None:
        """What must hold when no call is under way."""
        self.check()
        plugin, registry, records = self.plugin, self.plugin.registry, self.plugin.records
        for locks in (
            plugin.removal._calls.locks,
            plugin.networks._calls.locks,
            plugin.parents._locks,
            plugin.pools._calls.locks,
        ):
            assert locks._queues == {}, "a lock is still held"
        if not self.is_clean:
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
        unexplained = {each.endpoint_id for each in missing} - set(self.in_containers) - self.destroyed
        unexplained = {key for key in unexplained if self.history.surely_there(("endpoint", key))}
        assert unexplained == set(), f"without a link: {unexplained}"
        assert needed <= plugin.link_names()

    def check_usable(self) -> None:
        """Whatever has happened, a network and a container can be created and removed."""
        for steps in self._all_steps():
            steps.hold = set()
        plugin, network = self.plugin, NetworkCase(99, "eth0", "10.7.0.0/24")
        pool = parse_network(network.subnet)
        options = {"conflict_detection": "off"}  # so that nothing waits
        pool_id = plugin.wait(plugin.pools.request_pool(RequestPool(SPACE, pool, None, options))).pool_id
        plugin.wait(
            plugin.addresses.request_address(RequestAddress(pool_id, network.gateway, Purpose.GATEWAY))
        )
        plugin.create_network(network.network_id, subnets=(Subnet(pool, network.gateway, managed_here=True),))
        address = plugin.wait(plugin.addresses.request_address(RequestAddress(pool_id, None)))
        key = "f" * 64
        plugin.create_endpoint(key, network.network_id, str(address))
        plugin.wait(plugin.joining.join(requests.Join(network.network_id, key, "/s/f")))
        plugin.delete_endpoint(key, network.network_id)
        plugin.wait(plugin.addresses.release_address(ReleaseAddress(pool_id, address.ip)))
        plugin.wait(plugin.pools.release_pool(pool_id))
        plugin.delete_network(network.network_id)
        self._hold()

    def remove_all(self) -> None:
        """The engine removes everything, whether it was created or not; then nothing is left."""
        self.settle()
        self.check_settled()
        self.check_usable()
        unknown = set(self.plugin.store.open) - set(self.pools)
        assert len(unknown) <= self.unknown_pools, f"pools that were never requested: {unknown}"
        if not self.is_clean:
            self.kill()
            self.check_settled()
        for key, (network, *_) in self.endpoints.items():
            self._delete_endpoint(key, requests.EndpointCall(network.network_id, key))
        for claim in self.history.things("claim"):
            self._release_address(claim)
        self.settle()
        for network in NETWORKS:
            self.delete_network(network)
        for pool_id in [*self.pools, *unknown]:
            self._release_pool(pool_id)
        self.settle()
        self.check_settled()
        plugin = self.plugin
        assert plugin.link_names() == PLAIN_LINKS, plugin.link_names() - PLAIN_LINKS
        assert plugin.records.all_rows() == {}, plugin.records.all_rows()
        assert (plugin.store.open, plugin.store.allocated) == ({}, {})
        assert (dict(plugin.registry.networks), dict(plugin.registry.endpoints)) == ({}, {})
        assert plugin.pools._pools._sets == {}


__all__ = ["MOST_AT_ONCE", "Interleavings"]
