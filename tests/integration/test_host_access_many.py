"""With many containers the host has as many routes, and none after them."""

import os
import time
from collections.abc import Iterator
from functools import partial

import pytest

from tests.integration.conftest import need
from tests.integration.containers import AT_ONCE
from tests.integration.host_access import ACCESS, ROUTES, host_addresses, our_link, reached
from tests.integration.raw_hosts import GATEWAY, RawHost, at_once
from tests.integration.test_many_at_once import in_parallel
from tests.lab.commands import wait_until
from tests.lab.docker_host import DockerHost
from tests.lab.lan import Lan
from tests.lab.plugin import Plugin
from tests.lab.requirements import missing_for_lan

RAW = 200
NUMBER = int(os.environ.get("MACVLAN_TWISTED_CONTAINERS", "20"))
"""Of containers of a real engine, which takes half a second for each."""
SUBNET = ("--ipam-driver=macvlan-twisted", "--subnet=192.168.77.0/24", f"--gateway={GATEWAY}")


@pytest.fixture
def host() -> Iterator[RawHost]:
    """Run our service without an engine."""
    need(missing_for_lan())
    with Lan() as lan, Plugin(lan) as plugin:
        yield RawHost(plugin)
        assert "Traceback" not in plugin.log()


def test_two_hundred_containers_have_a_route_each(host: RawHost) -> None:
    lan = host.plugin.lan
    host.open("", host_access="true")
    started = at_once([partial(host.start, number) for number in range(1, RAW + 1)])
    addresses = [address for address, _ in started]
    assert reached(lan) == sorted(addresses)
    assert len({*addresses}) == RAW
    assert {route["prefsrc"] for route in lan.routes("host", *ROUTES)} == {*host_addresses(lan)}

    # The plugin is killed, and meanwhile others were at work on the routes.
    host.plugin.kill()
    link = our_link(lan)["ifname"]
    for address in addresses[:20]:
        lan.run_in("host", "ip", "route", "delete", f"{address}/32", "dev", link)
    lan.run_in("host", "ip", "route", "add", "192.168.77.254/32", "dev", link, *ROUTES)
    host.plugin.start()
    assert reached(lan) == sorted(addresses)

    at_once([partial(host.stop, number, address) for number, address in enumerate(addresses, 1)])
    assert reached(lan) == []
    host.close()
    # Links are removed in batches, for whose end no answer waits.
    wait_until(lambda: {*lan.host_links()} == {"lo", "eth1"}, 10, "the links' end")


def test_all_containers_of_an_engine_are_reached(docker_host: DockerHost) -> None:
    docker_host.create("lan", *SUBNET, *ACCESS)
    names = [f"c{number}" for number in range(NUMBER)]
    begin = time.monotonic()
    in_parallel(10, lambda name: docker_host.start(name, AT_ONCE), names)
    print(f"{NUMBER} containers started within {time.monotonic() - begin:.1f} s")
    addresses = reached(docker_host.lan)
    assert len(addresses) == NUMBER
    unheard = [each for each in addresses if not docker_host.lan.ping("host", each)]
    assert unheard == []
    begin = time.monotonic()
    in_parallel(10, lambda name: docker_host.engine.docker("rm", "--force", name), names)
    print(f"{NUMBER} containers removed within {time.monotonic() - begin:.1f} s")
    assert reached(docker_host.lan) == []
