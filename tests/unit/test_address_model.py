"""Address management against a naive model: any calls in any order, with restarts."""

from __future__ import annotations

from ipaddress import IPv4Address

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from macvlan_twisted.addresses import parse_address, parse_network, parse_range
from macvlan_twisted.config import Config
from macvlan_twisted.errors import RequestRefused
from macvlan_twisted.ipam.requests import Purpose, ReleaseAddress, RequestAddress, RequestPool
from macvlan_twisted.option_values import ConflictDetection

from .helpers import PluginHarness

PREFIX = parse_network("10.0.0.0/29")
PARTS = {None: range(1, 7), "10.0.0.4/30": range(4, 7), "10.0.0.2/31": range(2, 4)}
"""The usable numbers of each range; few, so that pools often want the same."""
EXCLUDED = {5}
BASE = int(PREFIX.network_address)
NUMBERS = st.integers(0, 7)


class AddressMachine(RuleBasedStateMachine):
    """The model knows who has which number, but not how the next one is found."""

    pools = Bundle("pools")

    def __init__(self) -> None:
        super().__init__()
        excluded = tuple(parse_range(f"10.0.0.{number}") for number in EXCLUDED)
        self.plugin = PluginHarness(
            config=Config(host_interface="eth0", excluded=excluded, conflict_detection=ConflictDetection.OFF)
        )
        self.part_of: dict[str, str | None] = {}
        self.owner: dict[int, str] = {}
        self.reserved: set[tuple[int, str]] = set()

    def taken(self) -> set[int]:
        return set(self.owner) | {number for number, _ in self.reserved}

    @rule(target=pools, part=st.sampled_from(list(PARTS)))
    def open(self, part: str | None) -> str:
        request = RequestPool("Local", PREFIX, None if part is None else parse_network(part), {})
        pool_id = self.plugin.wait(self.plugin.pools.request_pool(request)).pool_id
        assert pool_id not in self.part_of
        self.part_of[pool_id] = part
        return pool_id

    @rule(pool=consumes(pools), twice=st.booleans())
    def close(self, pool: str, twice: bool) -> None:
        for _ in range(1 + twice):
            self.plugin.wait(self.plugin.pools.release_pool(pool))
        del self.part_of[pool]
        self.owner = {number: owner for number, owner in self.owner.items() if owner != pool}
        self.reserved = {each for each in self.reserved if each[1] != pool}

    def asked(self, request: RequestAddress) -> int | None:
        try:
            found = self.plugin.wait(self.plugin.addresses.request_address(request))
        except RequestRefused:
            return None
        assert found.network == PREFIX
        return int(found.ip) - BASE

    @rule(pool=pools)
    def ask_for_any(self, pool: str) -> None:
        free = set(PARTS[self.part_of[pool]]) - self.taken() - EXCLUDED
        found = self.asked(RequestAddress(pool, None, Purpose.ENDPOINT, "c"))
        assert (found in free) if free else found is None, (found, free)
        if found is not None:
            self.owner[found] = pool

    @rule(pool=pools, number=NUMBERS)
    def ask_by_name(self, pool: str, number: int) -> None:
        address = IPv4Address(BASE + number)
        found = self.asked(RequestAddress(pool, address, Purpose.ENDPOINT, "c"))
        allowed = number in range(1, 7) and number not in self.taken()
        assert found == (number if allowed else None)
        if allowed:
            self.owner[number] = pool

    @rule(pool=pools, number=NUMBERS)
    def ask_for_gateway(self, pool: str, number: int) -> None:
        found = self.asked(RequestAddress(pool, IPv4Address(BASE + number), Purpose.GATEWAY))
        allowed = number in range(1, 7) and number not in self.owner
        assert found == (number if allowed else None)
        if allowed:
            self.reserved.add((number, pool))

    @rule(pool=pools, number=NUMBERS, twice=st.booleans())
    def release(self, pool: str, number: int, twice: bool) -> None:
        for _ in range(1 + twice):
            request = ReleaseAddress(pool, parse_address(f"10.0.0.{number}"))
            self.plugin.wait(self.plugin.addresses.release_address(request))
        if self.owner.get(number) == pool:
            del self.owner[number]
        self.reserved.discard((number, pool))

    @rule()
    def restart(self) -> None:
        self.plugin = self.plugin.next_life()

    @invariant()
    def disk_holds_what_is_taken(self) -> None:
        on_disk = {(int(address) - BASE, pool) for pool, address in self.plugin.store.allocated}
        assert on_disk == {*self.owner.items(), *self.reserved}
        assert set(self.plugin.store.open) == set(self.part_of)


AddressModelTests = AddressMachine.TestCase
AddressModelTests.settings = settings(max_examples=60, stateful_step_count=40)
