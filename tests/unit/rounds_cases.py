"""What tests of the rounds share: a house whose background work goes round, and an engine beside it."""

from __future__ import annotations

from typing import Any, cast

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent

from macvlan_twisted.addresses import parse_address, parse_network
from macvlan_twisted.driver.departed import Departed
from macvlan_twisted.driver.dropped import Drops
from macvlan_twisted.driver.rounds import AGES, Rounds
from macvlan_twisted.engine.api import EngineAbsent, ListedNetwork
from macvlan_twisted.ipam.requests import Purpose, RequestAddress, RequestPool
from macvlan_twisted.names import endpoint_link_name
from macvlan_twisted.state.interface import Kind

from .engines import Engine
from .helpers import ENDPOINT, NETWORK, House, HouseTestCase, endpoint_request, subnet

LINK = endpoint_link_name(ENDPOINT)
SUBNET = "192.168.1.0/24"
ROUND = 60.0
ENOUGH = AGES.silence + 2 * ROUND
"""Seconds after which whatever is to be removed has been."""


def listed(network_id: str = NETWORK, *subnets: str, driver: str = "macvlan-twisted") -> ListedNetwork:
    """A network with our address management, as the engine lists it."""
    return ListedNetwork(
        network_id,
        "lan",
        driver,
        "macvlan-twisted",
        tuple(parse_network(each) for each in subnets or (SUBNET,)),
    )


class RoundsTestCase(HouseTestCase):
    """A network with our address management, which the engine lists; rounds that a test begins."""

    every = ROUND

    def setUp(self) -> None:
        super().setUp()
        self.engine = Engine(has={NETWORK: listed()})
        self.stopping = False
        self.pool_id = self.create_all()

    def create_all(self, network_id: str = NETWORK, house: House | None = None) -> str:
        """As an engine does it."""
        house = house or self.house
        pool_id = self.request_pool(house)
        house.create_network(network_id, subnets=(evolve(subnet(SUBNET), is_ours=True),), parent="eth0")
        house.wait(house.network_pools.network_made("eth0", [(parse_network(SUBNET), ())], network_id))
        return pool_id

    def request_pool(self, house: House | None = None) -> str:
        house = house or self.house
        request = RequestPool("Local", parse_network(SUBNET), None, {"parent": "eth0"})
        return house.wait(house.pools.request_pool(request)).pool_id

    def request_address(self, text: str = "192.168.1.7", house: House | None = None) -> None:
        house = house or self.house
        request = RequestAddress(self.pool_id, parse_address(text), Purpose.ENDPOINT, f"c{text}")
        house.wait(house.addresses.request_address(request))

    def run_container(self, endpoint_id: str = ENDPOINT, text: str = "192.168.1.7", **words: Any) -> None:
        """RequestAddress, CreateEndpoint, and the link is moved into the container."""
        house: House = words.pop("house", self.house)
        self.request_address(text, house)
        house.wait(house.endpoints.create(endpoint_request(endpoint_id, address=f"{text}/24", **words)))
        house.kernel.move_away(endpoint_link_name(endpoint_id), up=True)
        self.engine.listed[endpoint_id] = "web"

    def forget_container(self, endpoint_id: str = ENDPOINT) -> None:
        """The container is gone with its namespace, and the engine has told nobody."""
        self.engine.listed.pop(endpoint_id, None)
        self.house.kernel.destroy_away(endpoint_link_name(endpoint_id))

    def no_engine(self) -> None:
        self.engine.trouble = EngineAbsent("no such file")

    def begin(self, house: House | None = None) -> Rounds:
        self.house = house = house or self.house
        self.rounds = Rounds(
            house.known,
            Departed(house.known, house.links, house.removal, house.records.instance),
            Drops(house.known, house.networks, house.pools, house.owners),
            house.leftovers,
            self.engine,
            "macvlan-twisted",
            self.every,
            AGES,
            lambda seconds: deferLater(cast(Any, house.clock), seconds),
            house.clock.seconds,
        )
        self.work: Deferred[None] = house.start(self.rounds.make(lambda: self.stopping))
        return self.rounds

    def start_again(self) -> Rounds:
        """A kill, and a start."""
        return self.begin(self.house.next_life())

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.house.clock.advance(1)

    def go_round(self, seconds: float = ENOUGH) -> str:
        """Let time pass, and return what was logged."""
        with capturedLogs() as events:
            self.pass_time(seconds)
        for event in events:
            if "log_failure" in event:
                event["log_failure"].raiseException()
        return "\n".join(filter(None, map(formatEvent, events)))

    def claimed(self) -> list[str]:
        """Containers' addresses on disk."""
        return sorted(
            str(claim.address)
            for claim in self.house.book.claimed.values()
            if claim.purpose == Purpose.ENDPOINT.value
        )

    def assert_kept(self, *endpoint_ids: str) -> None:
        self.assertEqual(set(self.house.known.endpoints), {*endpoint_ids})
        self.assertEqual(set(self.house.records.kept[Kind.ENDPOINT]), {*endpoint_ids})

    def assert_networks(self, *network_ids: str) -> None:
        self.assertEqual(set(self.house.known.networks), {*network_ids})
        self.assertEqual(set(self.house.records.kept[Kind.NETWORK]), {*network_ids})


__all__ = ["AGES", "ENOUGH", "LINK", "ROUND", "SUBNET", "RoundsTestCase", "listed"]
