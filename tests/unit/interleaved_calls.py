"""What an engine asks for in the interleavings, and what that does to the plain model."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from attrs import define

from macvlan_twisted.addresses import IPAddress, parse_interface, parse_network
from macvlan_twisted.driver import requests
from macvlan_twisted.driver.models import Subnet
from macvlan_twisted.ipam.requests import Purpose, ReleaseAddress, RequestAddress, RequestPool
from macvlan_twisted.link_names import endpoint_link_name

from .history import Deed
from .interleaved_world import MACS, MOST_AT_ONCE, PLACES, SPACE, Place, World


@define(eq=False)
class EngineCalls(World):
    """Calls such as an engine might make now, or make again."""

    def begin_any(self) -> None:
        """One call such as an engine might make now, or make again."""
        if len(self.under_way) >= MOST_AT_ONCE:
            return
        place = self.random.choice(PLACES)
        self.random.choices(
            [
                self.request_pool,
                self.create_network,
                self.request_address,
                self.create_endpoint,
                self.join,
                self.delete_endpoint,
                self.release_address,
                self.delete_network,
                self.release_pool,
            ],
            [4, 6, 10, 14, 6, 10, 6, 1, 1],
        )[0](place)

    def request_pool(self, place: Place) -> None:
        if not place.is_ours or sum(each == place for each in self.pools.values()) >= 2:
            return
        part = None if place.part is None else parse_network(place.part)
        asked = RequestPool(SPACE, parse_network(place.subnet), part, {"parent": place.parent})

        def granted(pool: Any) -> None:
            if pool.pool_id in self.pools:
                self.bugs.append(f"pool {pool.pool_id} was granted twice")
            self.pools[pool.pool_id] = place
            self.history.acknowledge(self.history.begin(("pool", pool.pool_id), True))

        self.begin("RequestPool", self.plugin.pools.request_pool(asked), [], granted)

    def create_network(self, place: Place) -> None:
        thing = ("network", place.network_id)
        subnets = (Subnet(parse_network(place.subnet), place.gateway, managed_here=place.is_ours),)
        options = {"parent": place.parent, **dict(place.options)}
        call = self.plugin.networks.create(requests.CreateNetwork(place.network_id, options, subnets=subnets))
        asides: list[Deed] = []
        makes_anew = not self.history.surely_there(thing)
        if makes_anew:  # if that fails, its endpoints go, too; an engine would not have made any yet
            asides = [self.history.begin(each, False) for each in self._endpoints_of(place)]
        deed = self.history.begin(thing, True)
        self.begin("CreateNetwork", call, [(thing, deed)], about=place if makes_anew else None, asides=asides)

    def _endpoints_of(self, place: Place) -> list[Hashable]:
        return [("endpoint", key) for key, (where, *_) in self.endpoints.items() if where == place]

    def delete_network(self, place: Place) -> None:
        things: list[Hashable] = [("network", place.network_id)]
        things += self._endpoints_of(place)
        deeds = [(thing, self.history.begin(thing, False)) for thing in things]
        call = self.plugin.networks.delete(place.network_id)
        self.begin("DeleteNetwork", call, deeds, deletes_network=place.network_id)

    def release_pool(self, place: Place) -> None:
        found = [pool_id for pool_id, where in self.pools.items() if where == place]
        if found:
            self._release_pool(self.random.choice(found))

    def _release_pool(self, pool_id: str) -> None:
        things: list[Hashable] = [("pool", pool_id)]
        things += [claim for claim in self.history.things("claim") if claim[1] == pool_id]
        deeds = [(thing, self.history.begin(thing, False)) for thing in things]

        def released(_: Any) -> None:
            self.pools.pop(pool_id, None)
            self.muddled.discard(pool_id)

        self.begin("ReleasePool", self.plugin.pools.release_pool(pool_id), deeds, released, about=pool_id)

    def request_address(self, place: Place) -> None:
        found = [pool_id for pool_id, where in self.pools.items() if where == place]
        if not found:
            return
        pool_id = self.random.choice(found)
        purpose, wanted, name = Purpose.ENDPOINT, None, self.random.choice(["", "", "a", "b"])
        if self.random.random() < 0.1:
            purpose, wanted, name = Purpose.GATEWAY, place.gateway, ""
        elif self.random.random() < 0.1:
            wanted = parse_network(place.subnet).network_address + self.random.randrange(64, 128)
        asked = RequestAddress(pool_id, wanted, purpose, name)
        had_containers = pool_id in self.had_containers

        def granted(address: Any) -> None:
            thing = ("claim", pool_id, address.ip)
            kept_as = self._purpose(thing)
            if kept_as == Purpose.ENDPOINT.value:
                self.had_containers.add(pool_id)
                # A router's or an auxiliary address, which several networks may name, is never a container's.
                for other in self.history.things("claim"):
                    shares = other[2] == address.ip and other[1] in self.pools
                    if (
                        shares
                        and self.pools[other[1]].parent == place.parent
                        and self.history.surely_there(other)
                    ):
                        self.bugs.append(f"{address} was handed out twice")
            elif purpose is Purpose.ENDPOINT:
                # To the service, what an engine names before the pool has containers, and for none, is auxiliary.
                may_be = wanted is not None and not name and not had_containers
                if kept_as != Purpose.AUXILIARY.value or not may_be:
                    self.bugs.append(f"{address} was asked for for a container, and is kept as {kept_as}")
            self.history.acknowledge(self.history.begin(thing, True))
            for each in self.under_way:
                if (each.what, each.about) == ("ReleasePool", pool_id):  # it goes with the pool
                    each.deeds.append((thing, self.history.begin(thing, False)))

        self.begin("RequestAddress", self.plugin.addresses.request_address(asked), [], granted, about=pool_id)

    def _purpose(self, claim: tuple[str, str, IPAddress]) -> str:
        """As what an address that was granted just now is kept."""
        return self.plugin.store.claimed[claim[1], claim[2]].purpose

    def create_endpoint(self, place: Place) -> None:
        if self.endpoints and self.random.random() < 0.15:
            key = self.random.choice(list(self.endpoints))
            place, address, mac = self.endpoints[key]
        else:
            key = f"{len(self.endpoints) + 1:063x}e"
            address, mac = self._address(place), self.random.choice(MACS)
        thing = ("endpoint", key)
        length = parse_network(place.subnet).prefixlen
        asked = requests.CreateEndpoint(
            place.network_id, key, parse_interface(f"{address}/{length}"), None, mac
        )
        begun = self.history.begin(thing, True)
        self.endpoints[key] = (place, address, mac)
        for each in self.under_way:
            if each.deletes_network == place.network_id:
                each.deeds.append((thing, self.history.begin(thing, False)))
            elif (each.what, each.about) == ("CreateNetwork", place) or (
                each.what == "CreateEndpoint" and each.about != key and self._clash(each.about, key)
            ):
                each.asides.append(self.history.begin(thing, False))
        # The engine may have forgotten those that have the same address or MAC: then they are dropped.
        asides = [
            self.history.begin(("endpoint", other), False)
            for other in self.endpoints
            if other != key and self._clash(other, key)
        ]
        call = self.plugin.endpoints.create(asked)
        self.begin("CreateEndpoint", call, [(thing, begun)], about=key, asides=asides)

    def _clash(self, one: str, other: str) -> bool:
        (place, address, mac), (where, its_address, its_mac) = self.endpoints[one], self.endpoints[other]
        return place.parent == where.parent and (
            address == its_address or (mac is not None and mac == its_mac)
        )

    def _address(self, place: Place) -> str:
        """What address management has granted; now and then one that somebody has."""
        if not place.is_ours:
            return str(parse_network(place.subnet).network_address + self.random.randrange(2, 200))
        granted = [
            str(claim[2])
            for claim in self.history.things("claim")
            if self.pools.get(claim[1]) == place
            and self.history.surely_there(claim)
            and claim[2] != place.gateway
        ]
        if not granted or self.random.random() < 0.05:
            return str(parse_network(place.subnet).network_address + self.random.randrange(2, 200))
        return self.random.choice(granted)

    def _endpoint(self) -> tuple[str, requests.EndpointCall] | None:
        if not self.endpoints:
            return None
        key = self.random.choice(list(self.endpoints)[-80:])
        return key, requests.EndpointCall(self.endpoints[key][0].network_id, key)

    def join(self, _place: Place) -> None:
        found = self._endpoint()
        if found is None:
            return
        key, about = found

        def joined(result: Any) -> None:
            link = endpoint_link_name(key)
            if result.link != link:
                self.bugs.append(f"Join answered {result}")
            # No engine has two calls about one endpoint under way; it moves the link only where none else is.
            is_settled = self.history.surely_there(("endpoint", key))
            if is_settled and self.plugin.kernel.exists(link) and self.random.random() < 0.5:
                self.away[key] = self.plugin.kernel.move_away(link, up=True)

        self.begin(
            "Join", self.plugin.endpoints.join(requests.Join(about.network_id, key, f"/s/{key}")), [], joined
        )
        if self.random.random() < 0.3:
            self.begin("EndpointOperInfo", self.plugin.endpoints.operational_info(about), [])

    def delete_endpoint(self, _place: Place) -> None:
        found = self._endpoint()
        if found is not None:
            self._delete_endpoint(*found)

    def _delete_endpoint(self, key: str, about: requests.EndpointCall) -> None:
        """The engine takes the link out of the sandbox first, or it went with that."""
        if key in self.away:
            facts = self.away.pop(key)
            if self.random.random() < 0.7:
                self.plugin.kernel.move_back(facts)
            else:
                self.plugin.kernel.move_back(facts)
                self.plugin.kernel.delete(facts.name)
                self.dead.add(key)
        if self.random.random() < 0.3:
            self.begin("Leave", self.plugin.endpoints.leave(about), [])
        thing = ("endpoint", key)
        deed = self.history.begin(thing, False)
        self.begin("DeleteEndpoint", self.plugin.removal.delete(about), [(thing, deed)])

    def release_address(self, place: Place) -> None:
        found = [claim for claim in self.history.things("claim") if self.pools.get(claim[1]) == place]
        if found:
            self._release_address(self.random.choice(found))

    def _release_address(self, claim: tuple[str, str, IPAddress]) -> None:
        deed = self.history.begin(claim, False)
        call = self.plugin.addresses.release_address(ReleaseAddress(claim[1], claim[2]))
        self.begin("ReleaseAddress", call, [(claim, deed)])
