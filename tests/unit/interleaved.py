"""Calls of an engine under way side by side on the fakes, and what must hold of them at any time: the interleavings."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Coroutine, Hashable
from random import Random
from typing import Any

from attrs import define, field, frozen
from twisted.python.failure import Failure

from macvlan_twisted.addresses import IPAddress, parse_interface, parse_network
from macvlan_twisted.driver import requests
from macvlan_twisted.driver.network import Subnet
from macvlan_twisted.errors import LinkFailed, MacvlanError
from macvlan_twisted.ipam.requests import Purpose, ReleaseAddress, RequestAddress, RequestPool
from macvlan_twisted.links.interface import LinkFacts
from macvlan_twisted.names import endpoint_link_name
from macvlan_twisted.state.interface import Kind

from .helpers import PLAIN_LINKS, House
from .history import Deed, History
from .steps import HeldStep, Steps, disk_refuses

MOST_AT_ONCE = 64
SPACE = "MacvlanTwistedLocal"


@frozen
class Place:
    """One network of the tests."""

    number: int
    parent: str
    subnet: str
    part: str | None = None
    options: tuple[tuple[str, str], ...] = ()
    is_ours: bool = True

    @property
    def network_id(self) -> str:
        return f"{self.number:064x}"

    @property
    def gateway(self) -> IPAddress:
        return parse_network(self.subnet).network_address + 1


PLACES = (
    Place(1, "eth0", "192.168.1.0/24", "192.168.1.64/27"),
    Place(2, "eth0", "192.168.1.0/24", "192.168.1.64/26", (("host_access", "true"),)),
    Place(3, "eth1.20", "10.0.0.0/24"),
    Place(4, "eth1.20", "10.9.0.0/24", is_ours=False),
    Place(5, "eth1.30.40", "10.8.0.0/24", is_ours=False),
)
PARENTS = {place.network_id: place.parent for place in PLACES}
MACS = (None, None, None, "02:00:00:00:aa:01", "02:00:00:00:aa:02")

KERNEL_ERRORS = (
    errno.EBUSY,
    errno.EEXIST,
    errno.ENODEV,
    errno.ENOBUFS,
    errno.EPERM,
    errno.EINVAL,
    errno.ENOMEM,
)
MAKING = {"add_port", "add_vlan", "add_address", "add_host_route", "configure", "save", "claim", "open_pool"}
"""Steps whose refusal is made good at once; where a removal is refused, something may stay until the next start."""


class Everything(set[str]):
    """Holds whatever it is asked for."""

    def __contains__(self, _name: object) -> bool:
        return True


@define(eq=False)
class Call:
    """One call that is under way."""

    what: str
    deeds: list[tuple[Hashable, Deed]]
    succeeded: Callable[[Any], None]
    about: Any = None
    deletes_network: str = ""
    asides: list[Deed] = field(factory=list)
    """What it may do to others."""


@define(eq=False)
class Interleaved:
    """An engine that has up to 64 calls under way at once, with steps held back, refused and let go in any order."""

    house: House
    random: Random
    history: History = field(factory=History)
    under_way: list[Call] = field(factory=list)
    bugs: list[str] = field(factory=list)
    counts: Counter[str] = field(factory=Counter)
    graves: list[tuple[Steps, House]] = field(factory=list)
    """Earlier lives. What hangs in them must not go on, as it would if it were collected."""
    pools: dict[str, Place] = field(factory=dict)
    """What the engine was granted, by id."""
    unknown_pools: int = 0
    """Which were granted to an engine that did not hear of it any more."""
    had_containers: set[str] = field(factory=set)
    """Pools that have, or had, addresses of containers."""
    muddled: set[str] = field(factory=set)
    """Pools with addresses of which the engine never heard."""
    endpoints: dict[str, tuple[Place, str, str | None]] = field(factory=dict)
    """All endpoints that ever were asked for: network, address, MAC."""
    away: dict[str, LinkFacts] = field(factory=dict)
    """Links in containers, by endpoint."""
    dead: set[str] = field(factory=set)
    """Endpoints whose links went with their sandboxes."""
    is_swept: bool = True
    """Whether no removal was refused since the last start: if one was, something may be left over until the next."""

    def __attrs_post_init__(self) -> None:
        self._hold()

    # Steps

    def _hold(self) -> None:
        for steps in self._all_steps():
            steps.hold = Everything()

    def _all_steps(self) -> tuple[Steps, Steps, Steps]:
        return self.house.steps, self.house.records.steps, self.house.book.steps

    def _held(self) -> list[tuple[Steps, HeldStep]]:
        """What may be taken next: any of the kernel's, and of each part of the state the first, for one thread writes."""
        kernel, *disks = self._all_steps()
        return [(kernel, step) for step in kernel.held] + [
            (each, each.held[0]) for each in disks if each.held
        ]

    def let_go(self, number: int) -> None:
        for _ in range(number):
            held = self._held()
            if not held:
                return
            steps, step = self.random.choice(held)
            steps.held.remove(step)
            step.go()

    def refuse(self, number: int) -> None:
        for _ in range(number):
            held = self._held()
            if not held:
                return
            steps, step = self.random.choice(held)
            steps.held.remove(step)
            self._note_refusal(step)
            message = f"{step.name}: a test refuses it"
            is_disk = steps is not self.house.steps
            step.fail(
                disk_refuses(message, 0)
                if is_disk
                else LinkFailed(message, self.random.choice(KERNEL_ERRORS))
            )

    def _note_refusal(self, step: HeldStep) -> None:
        self.counts["steps refused"] += 1
        if step.name in MAKING:
            return
        self.is_swept = False
        if step.name == "forget" and step.arguments[0] in (Kind.ENDPOINT, Kind.NETWORK):
            kind = "endpoint" if step.arguments[0] is Kind.ENDPOINT else "network"
            self.history.doubt((kind, step.arguments[1]), True)
        elif step.name == "release":
            self.history.doubt(("claim", *step.arguments), True)
        elif step.name == "close_pool":
            self.history.doubt(("pool", step.arguments[0]), True)
            self._doubt_claims(step.arguments[0])

    def _doubt_claims(self, pool_id: str) -> None:
        self.muddled.add(pool_id)
        for claim in self.history.things("claim"):
            if claim[1] == pool_id:
                self.history.doubt(claim, True)

    # Calls

    def begin(
        self,
        what: str,
        call: Coroutine[Any, Any, Any],
        deeds: list[tuple[Hashable, Deed]],
        succeeded: Callable[[Any], None] = lambda _: None,
        about: Any = None,
        deletes_network: str = "",
        asides: list[Deed] | None = None,
    ) -> None:
        begun = Call(what, deeds, succeeded, about, deletes_network, asides or [])
        self.under_way.append(begun)
        self.counts["calls"] += 1

        def ended(result: Any) -> None:
            if begun not in self.under_way:  # in a life that is over
                return
            self.under_way.remove(begun)
            for deed in begun.asides:
                self.history.give_up(deed)
            if not isinstance(result, Failure):
                for _thing, deed in begun.deeds:
                    self.history.acknowledge(deed)
                succeeded(result)
                self.counts["acknowledged"] += 1
                return
            self.counts["refused"] += 1
            if not isinstance(result.value, MacvlanError):
                self.bugs.append(f"{what}: {result.getTraceback()}")
            for thing, deed in begun.deeds:
                if deed.makes:
                    self.history.withdraw(thing, deed)
                else:
                    self.history.give_up(deed)

        self.house.start(call).addBoth(ended)

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

        self.begin("RequestPool", self.house.addresses.request_pool(asked), [], granted)

    def create_network(self, place: Place) -> None:
        thing = ("network", place.network_id)
        subnets = (Subnet(parse_network(place.subnet), place.gateway, is_ours=place.is_ours),)
        options = {"parent": place.parent, **dict(place.options)}
        call = self.house.networks.create(requests.CreateNetwork(place.network_id, options, subnets=subnets))
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
        call = self.house.networks.delete(place.network_id)
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

        self.begin("ReleasePool", self.house.addresses.release_pool(pool_id), deeds, released, about=pool_id)

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

        self.begin("RequestAddress", self.house.addresses.request_address(asked), [], granted, about=pool_id)

    def _purpose(self, claim: tuple[str, str, IPAddress]) -> str:
        """As what an address that was granted just now is kept."""
        return self.house.book.claimed[claim[1], claim[2]].purpose

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
        call = self.house.endpoints.create(asked)
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
            if is_settled and self.house.kernel.exists(link) and self.random.random() < 0.5:
                self.away[key] = self.house.kernel.move_away(link, up=True)

        self.begin(
            "Join", self.house.endpoints.join(requests.Join(about.network_id, key, f"/s/{key}")), [], joined
        )
        if self.random.random() < 0.3:
            self.begin("EndpointOperInfo", self.house.endpoints.operational_info(about), [])

    def delete_endpoint(self, _place: Place) -> None:
        found = self._endpoint()
        if found is not None:
            self._delete_endpoint(*found)

    def _delete_endpoint(self, key: str, about: requests.EndpointCall) -> None:
        """The engine takes the link out of the sandbox first, or it went with that."""
        if key in self.away:
            facts = self.away.pop(key)
            if self.random.random() < 0.7:
                self.house.kernel.move_back(facts)
            else:
                self.house.kernel.move_back(facts)
                self.house.kernel.delete(facts.name)
                self.dead.add(key)
        if self.random.random() < 0.3:
            self.begin("Leave", self.house.endpoints.leave(about), [])
        thing = ("endpoint", key)
        deed = self.history.begin(thing, False)
        self.begin("DeleteEndpoint", self.house.endpoints.delete(about), [(thing, deed)])

    def release_address(self, place: Place) -> None:
        found = [claim for claim in self.history.things("claim") if self.pools.get(claim[1]) == place]
        if found:
            self._release_address(self.random.choice(found))

    def _release_address(self, claim: tuple[str, str, IPAddress]) -> None:
        deed = self.history.begin(claim, False)
        call = self.house.addresses.release_address(ReleaseAddress(claim[1], claim[2]))
        self.begin("ReleaseAddress", call, [(claim, deed)])

    # Ends

    def settle(self) -> None:
        """Let all steps go, and see that each call ends."""
        for _ in range(200):
            self.let_go(100_000)
            if not self.under_way and not self._held():
                break
            self.house.clock.advance(1)
        waiting = [call.what for call in self.under_way]
        assert waiting == [], f"these wait for ever: {waiting}"

    def kill(self) -> None:
        """The process is gone; some of what it was about to do has been done, and nobody was answered."""
        kernel, *disks = self._all_steps()
        for step in list(kernel.held):
            if self.random.random() < 0.5:
                self._done_unseen(step)
        for steps in disks:
            for step in steps.held[: self.random.randrange(len(steps.held) + 1)]:
                self._done_unseen(step)
        under_way, self.under_way = self.under_way, []
        for call in under_way:
            for deed in (*call.asides, *(deed for _thing, deed in call.deeds)):
                self.history.give_up(deed)
            if call.what == "RequestPool":
                self.unknown_pools += 1
            elif call.what == "RequestAddress":
                self.muddled.add(call.about)
        self.graves += [(steps, self.house) for steps in self._all_steps()]
        self.counts["kills"] += 1
        self.history.tick()
        self.house = self.house.next_life()
        self.is_swept = True
        self._hold()

    @staticmethod
    def _done_unseen(step: HeldStep) -> None:
        try:
            step.do()
        except MacvlanError:
            return

    # What must hold

    def check(self) -> None:
        """At any time."""
        assert self.bugs == [], "\n".join(self.bugs)
        kernel, known = self.house.kernel, self.house.known
        rows = self.house.records.documents(Kind.ENDPOINT)
        for key in self.endpoints:
            may_be = self.history.may_be(("endpoint", key))
            link = endpoint_link_name(key)
            if may_be == {True}:
                assert key in rows, f"{key} was acknowledged, and has no row"
                assert key in known.endpoints, f"{key} was acknowledged, and is not known"
                assert kernel.exists(link) or key in self.away or key in self.dead, f"{key} has no link"
            elif may_be == {False}:
                assert key not in rows, f"{key} was removed, or never made, and has a row"
                assert key not in known.endpoints, f"{key} was removed, or never made, and is known"
        networks = self.house.records.documents(Kind.NETWORK)
        for place in PLACES:
            may_be = self.history.may_be(("network", place.network_id))
            if may_be == {True}:
                assert place.network_id in known.networks, f"network {place.number} is not known"
                assert networks[place.network_id]["is_made"], f"network {place.number} is half made"
            elif may_be == {False}:
                assert place.network_id not in networks, f"network {place.number} has a row"
                assert place.network_id not in known.networks, f"network {place.number} is known"
        self._check_addresses()
        self._check_macs()
        assert self.house.link_names() >= PLAIN_LINKS, "a NIC is gone"

    def _check_addresses(self) -> None:
        book = self.house.book
        for thing in self.history.things("pool"):
            may_be = self.history.may_be(thing)
            assert len(may_be) > 1 or (thing[1] in book.open) == may_be.pop(), thing
        asking = {call.about for call in self.under_way if call.what == "RequestAddress"} | self.muddled
        for thing in self.history.things("claim"):
            if self.history.surely_there(thing):
                assert thing[1:] in book.claimed, f"{thing} was granted, and is not on disk"
            elif self.history.surely_gone(thing) and thing[1] not in asking:
                claim = book.claimed.get(thing[1:])
                # The host may have it now: its address is taken in all pools of the network's shared set.
                is_free = claim is None or claim.purpose == Purpose.HOST.value
                assert is_free, f"{thing} was released, and is on disk"
        owners: dict[tuple[str, IPAddress], str] = {}
        for (pool_id, address), claim in book.claimed.items():
            parent = str(book.open[pool_id]["parent"])
            if claim.purpose == Purpose.ENDPOINT.value:
                assert (parent, address) not in owners, f"{address} is taken twice on {parent}"
                owners[parent, address] = pool_id
        for (pool_id, address), claim in book.claimed.items():
            if claim.purpose != Purpose.ENDPOINT.value:
                owner = owners.get((str(book.open[pool_id]["parent"]), address))
                assert owner is None, f"{address} is a container's, and a {claim.purpose} address"

    def _check_macs(self) -> None:
        house = self.house
        # A container whose address was given to another one has been forgotten by the engine, and is dead.
        alive = [facts for key, facts in self.away.items() if self.history.surely_there(("endpoint", key))]
        links = [*house.kernel.links(), *alive]
        # One of an endpoint that was dropped, which the engine has moved back, lies about until its removal is answered.
        known = {endpoint.link for endpoint in house.known.endpoints.values()}
        ours = [link for link in links if link.name in known and link.group == house.links.group]
        macs = Counter((link.lower_index, link.mac) for link in ours)
        if not self.is_swept:  # a link whose removal the kernel has refused lies about, down
            return
        twice = [mac for mac, number in macs.items() if number > 1]
        assert twice == [], f"two links have {twice}"

    def check_settled(self) -> None:
        """When no call is under way."""
        self.check()
        house, known, records = self.house, self.house.known, self.house.records
        for turns in (
            house.endpoints.turns,
            house.networks._turns,
            house.parents._turns,
            house.addresses._turns,
        ):
            assert turns._locks == {}, "somebody still has a turn"
        if not self.is_swept:
            return
        assert set(records.documents(Kind.ENDPOINT)) == set(known.endpoints)
        assert set(records.documents(Kind.NETWORK)) == set(known.networks)
        assert set(records.documents(Kind.MADE_LINK)) == set(known.made_links)
        assert set(house.book.open) == set(house.addresses._pools.by_id)
        needed = {step.link for network in known.networks.values() for step in network.vlan_steps}
        assert set(known.made_links) <= needed
        needed = {
            step.link
            for network in known.networks.values()
            for step in network.vlan_steps
            if self.history.surely_there(("network", network.network_id))
        }
        assert set(known.made_links) >= needed
        hosts = {link.name for link in known.host_links.values()}
        expected = {
            *PLAIN_LINKS,
            *known.made_links,
            *hosts,
            *(each.link for each in known.endpoints.values()),
        }
        assert house.link_names() <= expected, f"left behind: {house.link_names() - expected}"
        missing = {each for each in known.endpoints.values() if not house.kernel.exists(each.link)}
        unexplained = {each.endpoint_id for each in missing} - set(self.away) - self.dead
        unexplained = {key for key in unexplained if self.history.surely_there(("endpoint", key))}
        assert unexplained == set(), f"without a link: {unexplained}"
        assert needed <= house.link_names()

    def a_life_goes_well(self) -> None:
        """Whatever has happened, a network and a container can be made and removed."""
        for steps in self._all_steps():
            steps.hold = set()
        house, place = self.house, Place(99, "eth0", "10.7.0.0/24")
        pool = parse_network(place.subnet)
        pool_id = house.wait(house.addresses.request_pool(RequestPool(SPACE, pool, None, {}))).pool_id
        house.wait(house.addresses.request_address(RequestAddress(pool_id, place.gateway, Purpose.GATEWAY)))
        house.create_network(place.network_id, subnets=(Subnet(pool, place.gateway, is_ours=True),))
        address = house.wait(house.addresses.request_address(RequestAddress(pool_id, None)))
        key = "f" * 64
        house.create_endpoint(key, place.network_id, str(address))
        house.wait(house.endpoints.join(requests.Join(place.network_id, key, "/s/f")))
        house.delete_endpoint(key, place.network_id)
        house.wait(house.addresses.release_address(ReleaseAddress(pool_id, address.ip)))
        house.wait(house.addresses.release_pool(pool_id))
        house.wait(house.networks.delete(place.network_id))
        self._hold()

    def leave_nothing(self) -> None:
        """The engine removes all, whether it was made or not; then nothing is left."""
        self.settle()
        self.check_settled()
        self.a_life_goes_well()
        unknown = set(self.house.book.open) - set(self.pools)
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
        house = self.house
        assert house.link_names() == PLAIN_LINKS, house.link_names() - PLAIN_LINKS
        assert house.records.all_rows() == {}, house.records.all_rows()
        assert (house.book.open, house.book.claimed) == ({}, {})
        assert (dict(house.known.networks), dict(house.known.endpoints)) == ({}, {})
        assert house.addresses._pools._sets == {}

    def bury(self) -> None:
        """End what hangs in earlier lives, now that it can do no harm."""
        self.under_way.clear()
        self.graves += [(steps, self.house) for steps in self._all_steps()]
        for steps in self._all_steps():
            steps.hold = set()
        while any(steps.held for steps, _ in self.graves):
            for steps, house in self.graves:
                while steps.held:
                    steps.held.pop(0).fail(LinkFailed("this life is over"))
                house.clock.advance(60)
