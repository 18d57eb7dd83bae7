"""Calls of the engine that come when something else has happened meanwhile."""

from macvlan_twisted.link_names import endpoint_link_name
from tests.integration.raw_hosts import RawHost
from tests.lab.commands import run
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
                assert f"CreateEndpoint comes too late: address {ADDRESS} was released" in answer["Err"]
                assert link in links_in(namespace)
                plugin.stop()
                plugin.start()
            host.stop(LIVING, ADDRESS)
        finally:
            run("ip", "netns", "delete", namespace)
