"""The time of day is set while the service runs: nothing waits for it, and nothing comes early."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest
from attrs import define

from tests.integration.conftest import need
from tests.integration.dhcp_hosts import (
    AT_ONCE,
    MAC,
    NULL,
    ON_ETH1,
    SUBNET,
    UNDER_MAC,
    assert_leased,
)
from tests.integration.raw_hosts import RawHost
from tests.lab.capture import Capture
from tests.lab.commands import SLACK
from tests.lab.dhcp_server import DhcpServer
from tests.lab.docker_host import DockerHost
from tests.lab.engine import Engine
from tests.lab.lan import Lan
from tests.lab.plugin import DEFAULTS, Plugin
from tests.lab.requirements import missing_for_dhcp, missing_for_wall_clock
from tests.lab.wall_clock import WallClock

HOUR, DAY = 3600, 86400
STEPS = {
    f"{name} {way}": sign * seconds
    for name, seconds in (("hour", HOUR), ("day", DAY), ("ten days", 10 * DAY))
    for way, sign in (("back", -1), ("forward", 1))
}
SHORT = ("hour back", "ten days forward")
CHOSEN = STEPS if os.environ.get("MACVLAN_TWISTED_TEST_ALL") == "1" else {name: STEPS[name] for name in SHORT}
stepped = pytest.mark.parametrize("step", CHOSEN.values(), ids=CHOSEN)
OUR_IPAM = ("--ipam-driver=macvlan-twisted", *SUBNET, ON_ETH1)
FIXED = "192.168.77.77"
LONG = 120
"""Seconds within which everything ends that takes a second or two on a quiet machine, and an hour if it waits for the
time of day."""


@pytest.fixture(scope="module")
def wall_clock(tmp_path_factory: pytest.TempPathFactory) -> WallClock:
    """Give the service's time of day."""
    need(missing_for_wall_clock())
    return WallClock(tmp_path_factory.mktemp("clock"))


@define
class LeasedContainer:
    """A container with a lease that is to be renewed after two seconds, and rebound after four."""

    host: DockerHost
    server: DhcpServer
    address: str
    _served: int = 0
    _logged: int = 0

    def begin(self) -> None:
        """Begin a test."""
        self._served, self._logged = len(self.server.log()), len(self.host.plugin.log())

    def wait_for_renewal(self) -> None:
        """Wait until the server confirms the lease once more; in this test it was never in question."""
        renewed = f"DHCPACK(eth1) {self.address} {MAC}"
        self.server.wait_for_log(renewed, seconds=LONG / SLACK, since=len(self.server.log()))
        assert "DHCPDISCOVER" not in self.server.log()[self._served :]
        assert ": lease of" not in self.host.plugin.log()[self._logged :]


@pytest.fixture(scope="module")
def lasting_web(lasting_engine: Engine, wall_clock: WallClock) -> Iterator[LeasedContainer]:
    """Run our service beside the engine, with a time of day of its own, and a container; nothing is left after it."""
    need(missing_for_dhcp())
    with (
        Plugin(
            lasting_engine.lan,
            lasting_engine.plugins_dir,
            inside=lasting_engine,
            arguments=(*DEFAULTS, "--docker-host", lasting_engine.docker_host),
            environment=wall_clock.environment,
            preloaded=False,
        ) as plugin,
        DhcpServer(lasting_engine.lan, t1=2, t2=4) as server,
    ):
        host = DockerHost(lasting_engine, plugin)
        host.create("lan", *OUR_IPAM)
        host.create("leased", *NULL)
        leased = assert_leased(server, host.start("web", UNDER_MAC, AT_ONCE, network="leased"))
        yield LeasedContainer(host, server, leased)
        host.engine.clear()
        assert f"DHCPRELEASE(eth1) {leased}" in server.log()
        plugin.stop()
        assert host.remains() == []


@pytest.fixture
def web(lasting_web: LeasedContainer, wall_clock: WallClock) -> LeasedContainer:
    """Give the container to one test, at the right time of day."""
    wall_clock.set(0)
    if not lasting_web.host.plugin.running:
        lasting_web.host.plugin.start()
    lasting_web.begin()
    lasting_web.wait_for_renewal()
    return lasting_web


@pytest.mark.one_engine
@stepped
def test_containers_start_and_leases_are_renewed(
    web: LeasedContainer, wall_clock: WallClock, step: int
) -> None:
    """The clock is set while the service waits for the next renewal, and while it probes."""
    wall_clock.set(step)
    with probes_for_it(web.host.lan) as probes, ThreadPoolExecutor(1) as other:
        starting = other.submit(web.host.start, "db", "--ip", FIXED, AT_ONCE)
        assert probes.lines(), "nobody probes"
        wall_clock.set(2 * step)
        db = starting.result(LONG)
    assert db.addresses() == {f"{FIXED}/24"}
    web.wait_for_renewal()
    db.remove()


@pytest.mark.one_engine
@stepped
def test_leases_survive_a_wrong_clock_at_start(
    web: LeasedContainer, wall_clock: WallClock, step: int
) -> None:
    """The clock is corrected once the service runs."""
    web.host.plugin.stop()
    wall_clock.set(step)
    web.host.plugin.start()
    web.wait_for_renewal()
    wall_clock.set(0)
    web.wait_for_renewal()


@stepped
def test_stop_in_a_probe_ends_in_time(lan: Lan, wall_clock: WallClock, step: int) -> None:
    """The call under way is answered. The service starts with a wrong clock, too."""
    wall_clock.set(-step)
    with Plugin(lan, environment=wall_clock.environment, preloaded=False) as plugin:
        host = RawHost(plugin)
        host.open("192.168.77.64/28")
        with probes_for_it(lan) as probes, ThreadPoolExecutor(1) as other:
            asked = other.submit(host.take, FIXED)
            assert probes.lines(), "nobody probes"
            wall_clock.set(step)
            plugin.stop(seconds=LONG / SLACK)
            assert asked.result(LONG) == FIXED


def probes_for_it(lan: Lan) -> AbstractContextManager[Capture]:
    """Listen for the first probe for the fixed address."""
    return lan.capture("neighbour", f"arp[6:2] == 1 and arp dst host {FIXED}", count=1, seconds=LONG)
