"""The time of day is set while the service runs: nothing waits for it, and nothing comes early."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

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
from tests.lab.dhcp_server import DhcpServer
from tests.lab.docker_host import DockerHost
from tests.lab.engine import Engine
from tests.lab.plugin import DEFAULTS, Plugin
from tests.lab.requirements import missing_for_dhcp, missing_for_wall_clock
from tests.lab.wall_clock import WallClock

HOUR, DAY = 3600, 86400
STEPS = {
    f"{name} {way}": sign * seconds
    for name, seconds in (("hour", HOUR), ("day", DAY), ("ten days", 10 * DAY))
    for way, sign in (("back", -1), ("forward", 1))
}
stepped = pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
OUR_IPAM = ("--ipam-driver=macvlan-twisted", *SUBNET, ON_ETH1)
FIXED = "192.168.77.77"
LONG = 30
"""Seconds within which everything ends that takes a second or two on a quiet machine, and an hour if it waits for the
time of day."""


@pytest.fixture
def wall_clock(tmp_path: Path) -> WallClock:
    """Give the service's time of day."""
    need(missing_for_wall_clock())
    return WallClock(tmp_path)


@pytest.fixture
def docker_host(lasting_engine: Engine, wall_clock: WallClock) -> Iterator[DockerHost]:
    """Run our service beside the engine, with a time of day of its own."""
    with Plugin(
        lasting_engine.lan,
        lasting_engine.plugins_dir,
        inside=lasting_engine,
        arguments=(*DEFAULTS, "--docker-host", lasting_engine.docker_host),
        environment=wall_clock.environment,
        preloaded=False,
    ) as plugin:
        host = DockerHost(lasting_engine, plugin)
        yield host
        wall_clock.set(0)
        if not plugin.running:
            plugin.start()
        host.engine.clear()
        plugin.stop()
        assert host.remains() == []


@pytest.fixture
def server(docker_host: DockerHost) -> Iterator[DhcpServer]:
    """Run a DHCP server whose leases are to be renewed after two seconds, and rebound after four."""
    need(missing_for_dhcp())
    with DhcpServer(docker_host.lan, t1=2, t2=4) as made:
        yield made


@pytest.mark.one_engine
@stepped
def test_containers_start_and_leases_are_renewed(
    docker_host: DockerHost, server: DhcpServer, wall_clock: WallClock, step: int
) -> None:
    """The clock is set while the service is idle, while it renews, and while it probes."""
    docker_host.create("leased", *NULL)
    leased = assert_leased(server, docker_host.start("web", UNDER_MAC, AT_ONCE, network="leased"))
    docker_host.create("lan", *OUR_IPAM)
    wall_clock.set(step)
    renewed = server.count("DHCPACK", MAC)
    probe = docker_host.lan.capture(
        "neighbour", f"arp and arp[6:2] == 1 and dst host {FIXED}", count=1, seconds=LONG
    )
    with probe as probes, ThreadPoolExecutor(1) as other:
        starting = other.submit(docker_host.start, "db", "--ip", FIXED, AT_ONCE)
        assert probes.lines()
        wall_clock.set(2 * step)
        db = starting.result(LONG)
    assert db.addresses() == {f"{FIXED}/24"}
    so_far = len(server.log())
    server.wait_for_log(f"DHCPACK(eth1) {leased} {MAC}", seconds=LONG, since=so_far)
    assert server.count("DHCPACK", MAC) > renewed
    assert server.count("DHCPDISCOVER", MAC) == 1
    assert "has no right" not in docker_host.plugin.log()
