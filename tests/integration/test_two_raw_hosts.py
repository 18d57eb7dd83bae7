"""Two docker hosts hand out one range of one LAN, by raw calls: faster than with engines, and more at once."""

import threading
from functools import partial

import pytest

from tests.integration.raw_hosts import RawHost, at_once, consecutive, open_and_hold, two_raw_hosts, who_has
from tests.lab.commands import wait_until

WHOLE = "192.168.77.0/24"
HALF = "192.168.77.128/25"
SIXTEEN = "192.168.77.128/28"
"""Of so few addresses two are held."""


def test_hundred_containers_on_two_hosts_have_distinct_addresses() -> None:
    with two_raw_hosts() as (lan, first, second):
        at_once([partial(host.open, WHOLE) for host in (first, second)])
        started = at_once(
            [partial(host.start, number) for number in range(1, 51) for host in (first, second)]
        )
        addresses = [address for address, _ in started]
        assert len(set(addresses)) == 100, f"handed out twice: {sorted(addresses)}"
        assert len({mac for _, mac in started}) == 100
        assert not {*addresses} & {
            each.partition("/")[0] for each in (*lan.addresses.host, *lan.addresses.host2)
        }


@pytest.mark.parametrize("attempt", range(3))
def test_services_started_together_hold_distinct_addresses(attempt: int) -> None:
    """Each probes while the other one does, for the same addresses of the range, and knows nothing."""
    with two_raw_hosts() as (_lan, first, second):
        barrier = threading.Barrier(2)

        def begin(host: RawHost) -> list[str]:
            barrier.wait()
            host.open(HALF)
            return [host.take() for _ in range(10)]

        mine, theirs = at_once([partial(begin, first), partial(begin, second)])
        assert set(mine) & set(theirs) == set()


def test_addresses_held_by_another_host_are_free_after_its_end() -> None:
    with two_raw_hosts() as (lan, first, second):
        held = consecutive("192.168.77.128", 4)
        open_and_hold(lan, first, SIXTEEN, *held)
        second.open(SIXTEEN)
        taken = [second.take() for _ in range(12)]
        assert set(taken) & set(held) == set()
        refused = second.ask()["Err"]
        assert "pool 192.168.77.0/24 (range 192.168.77.128/28) is exhausted" in refused
        assert "4 in use by other hosts on eth1" in refused
        assert "address 192.168.77.128: not allocated, in use on eth1" in second.plugin.log()

        first.plugin.stop()
        assert who_has(lan, held[0], seconds=0.5) is None, "let go at the end of the service"
        # Who was heard with an address within the last five seconds has it, and is not asked.
        found: list[str] = []

        def is_handed_out() -> bool:
            found.extend(str(each) for each in [second.ask().get("Address")] if each)
            return len(found) == 4

        wait_until(is_handed_out, 20, "the addresses that the other host held", pause=0.5)
        assert sorted(found) == [f"{each}/24" for each in held]


def test_address_of_another_hosts_container_is_refused() -> None:
    with two_raw_hosts() as (_lan, first, second):
        first.open(HALF)
        second.open(HALF)
        address, mac = first.start(1)
        refused = second.ask(address)["Err"]
        assert f"address {address} is in use on eth1 by MAC {mac}" in refused
        assert "--ip" in refused
