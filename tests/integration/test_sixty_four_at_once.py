"""Sixty-four callers on the real socket, with links of the real kernel: on one network, and on many."""

import threading
from collections.abc import Iterator
from functools import partial
from random import Random

import pytest

from tests.integration.conftest import need
from tests.integration.raw_hosts import at_once
from tests.lab.commands import wait_until
from tests.lab.docker_host import DockerHost
from tests.lab.engine import Engine
from tests.lab.lan import Lan
from tests.lab.plugin import DEFAULTS, Plugin
from tests.lab.requirements import missing_for_lan
from tests.torture.caller import Caller, Ledger, Net
from tests.torture.lives import ProcessUsage, our_links
from tests.torture.part import Tally

CALLERS = 64
LIVES = 3
"""Of each caller, one after the other."""


@pytest.fixture
def plugin() -> Iterator[Plugin]:
    """Run our service on a host with two NICs."""
    need(missing_for_lan())
    with Lan(nics=2) as lan, Plugin(lan, arguments=(*DEFAULTS, "--conflict-detection", "off")) as made:
        yield made


def lived(plugin: Plugin, networks: list[Net], *, own: bool) -> None:
    """All callers at once: each makes a network of its own, or they share `networks`."""
    ledger = Ledger(Tally())
    together = threading.Barrier(CALLERS)

    def one(number: int) -> None:
        caller = Caller(plugin, ledger, "", "", Random(number))
        net = networks[number % len(networks)]
        together.wait()
        if own:
            net.open(plugin)
        for _ in range(LIVES):
            caller.live(net)
        caller.close()
        if own:
            net.close(plugin)

    at_once([partial(one, number) for number in range(CALLERS)])
    assert ledger.tally.findings == []
    assert ledger.counts == {"lives whole": CALLERS * LIVES}
    wait_until(lambda: not our_links(plugin.lan), 30, "the links' end")


def assert_nothing_left(plugin: Plugin, before: ProcessUsage) -> None:
    """No descriptor or thread more than before, and, at the end, no link, row or address."""
    after = ProcessUsage(plugin)
    assert after.threads <= before.threads
    assert after.descriptors <= before.descriptors
    plugin.stop()
    assert DockerHost(Engine(plugin.lan), plugin).remains() == []
    plugin.start()


def test_callers_sharing_a_network_lose_and_leave_nothing(plugin: Plugin) -> None:
    networks = [Net(1, "eth1", "10.61.0.0/16", {"host_access": "true"}, is_ours=True)]
    networks[0].open(plugin)
    lived(plugin, networks, own=False)
    before = ProcessUsage(plugin)
    lived(plugin, networks, own=False)
    networks[0].close(plugin)
    assert_nothing_left(plugin, before)


def test_callers_with_a_network_each_lose_and_leave_nothing(plugin: Plugin) -> None:
    networks = [
        Net(number, f"eth{1 + number % 2}", f"10.62.{number}.0/24", {}, is_ours=number % 4 > 0)
        for number in range(CALLERS)
    ]
    lived(plugin, networks, own=True)
    before = ProcessUsage(plugin)
    lived(plugin, networks, own=True)
    assert_nothing_left(plugin, before)
