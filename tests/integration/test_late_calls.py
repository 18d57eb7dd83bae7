"""Calls of the engine that come when something else has happened meanwhile."""

from macvlan_twisted.link_names import endpoint_link_name
from tests.integration.raw_hosts import STRANGER, RawHost, open_and_hold
from tests.lab.commands import run, wait_until
from tests.lab.frames import arp_announcement
from tests.lab.lan import Lan
from tests.lab.plugin import DEFAULTS, Plugin

PART = "192.168.77.64/30"
ADDRESS = "192.168.77.64"
LATE, LIVING = 1, 2


def links_in(namespace: str) -> str:
    return run("ip", "-netns", namespace, "-brief", "link")


def test_late_endpoint_takes_nothing_from_a_living_container(lan: Lan) -> None:
    """Its address was released, and is another container's by now; its link is in the container's namespace."""
    namespace = f"{lan.tag}-box"
    with Plugin(lan, arguments=DEFAULTS) as plugin:
        host = RawHost(plugin)
        host.open(PART)
        assert host.take() == ADDRESS
        host.release(ADDRESS)
        host.take(ADDRESS)
        host.create(LIVING, ADDRESS)
        link = endpoint_link_name(f"{LIVING:064x}")
        run("ip", "netns", "add", namespace)
        try:
            run("ip", "-netns", lan.namespace("host"), "link", "set", link, "netns", namespace)
            run("ip", "-netns", namespace, "link", "set", link, "up")
            for _ in range(2):
                answer = host.create_answer(LATE, ADDRESS)
                assert f"address {ADDRESS} was released before its endpoint was created" in answer["Err"]
                assert link in links_in(namespace)
                plugin.stop()
                plugin.start()
            host.stop(LIVING, ADDRESS)
        finally:
            run("ip", "netns", "delete", namespace)


def test_neighbour_that_answers_late_keeps_its_address(lan: Lan) -> None:
    """The last look before an address is allocated takes a millisecond; engines do not try again after a refusal."""
    with Plugin(lan, arguments=DEFAULTS) as plugin:
        host = RawHost(plugin)
        open_and_hold(lan, host, "192.168.77.64/28", ADDRESS)
        address = host.take()
        assert address == ADDRESS
        lan.send_frame("neighbour", arp_announcement(STRANGER, address))
        noticed = f"address {address}: not allocated, in use on eth1 by MAC {STRANGER}"
        wait_until(lambda: noticed in plugin.log(), 10, "a word of the neighbour")
        answer = host.create_answer(LATE, address)
        assert f"address {address} is in use on eth1 by MAC {STRANGER}" in answer["Err"]
        assert endpoint_link_name(f"{LATE:064x}") not in lan.host_links()
        host.release(address)
        again = host.take()
        assert again != address
        host.create(LATE, again)
        host.stop(LATE, again)
