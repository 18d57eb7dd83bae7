"""What the engine dropped silently is removed in the background; what is in use stays."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from tests.integration.containers import AT_ONCE, OUR_IPAM, address, assert_all_talk, endpoints
from tests.lab.commands import within
from tests.lab.docker_host import DockerHost
from tests.lab.engine import Engine
from tests.lab.lan import Lan
from tests.lab.plugin import DEFAULTS, Plugin, ShortGracePeriods
from tests.lab.refusing_plugin import refusing_plugin

GRACE_PERIODS = ShortGracePeriods()
OFTEN = ("--reconcile-interval", "1")
ENDPOINT_NAME = "com.docker.network.endpoint.name"
PATIENCE = 60
"""Seconds within which a loaded machine has found out what a quiet one finds out within 20."""


@pytest.fixture(scope="module")
def engine(usable_engine_version: str) -> Iterator[Engine]:
    """Run an engine that is killed and started again by the tests; its containers outlive it."""
    with Lan() as lan, Engine(lan, usable_engine_version, external_containerd=True) as made:
        made.load_busybox()
        yield made


@contextmanager
def host_beside(engine: Engine, *words: str) -> Iterator[DockerHost]:
    """Run our service with short grace periods beside an engine, and insist that nothing is left in the end."""
    arguments = (*DEFAULTS, *OFTEN, *(words or ("--docker-host", engine.docker_host)))
    with ExitStack() as undo:
        plugin = undo.enter_context(
            Plugin(
                engine.lan,
                engine.plugins_dir,
                inside=engine,
                arguments=arguments,
                short_grace_periods=GRACE_PERIODS,
            )
        )
        host = DockerHost(engine, plugin)
        yield host
        if not plugin.running:
            plugin.start()
        if not engine.running:
            engine.start()
        engine.clear()
        plugin.stop()
        assert host.remains() == []


@pytest.fixture
def host(engine: Engine) -> Iterator[DockerHost]:
    """Run our service, which asks the engine."""
    with host_beside(engine) as made:
        yield made


def links_of_containers(host: DockerHost) -> set[str]:
    """Return the links that lie in the host's namespace and are meant for containers."""
    return {name for name in host.links() if name.startswith("mvt")}


def rows(host: DockerHost) -> tuple[int, int]:
    """Stop the service, count its rows of endpoints and of containers' addresses, and start it again."""
    host.plugin.stop()
    found = host.rows()
    host.plugin.start()
    return len(found["endpoints"]), len([row for row in found["addresses"] if row[2].startswith("endpoint")])


def logged(host: DockerHost, *words: str) -> Callable[[], bool]:
    """Return a function that tells whether the service has logged all of these words since now."""
    length = len(host.plugin.log())
    return lambda: all(word in host.plugin.log()[length:] for word in words)


def test_containers_removed_meanwhile_leave_nothing(host: DockerHost) -> None:
    """The engine removes a container whatever the plugin replies, and never mentions it again."""
    host.create("lan", *OUR_IPAM)
    host.start("kept", AT_ONCE)
    host.start("gone", AT_ONCE)
    before = address(host.engine, "gone")
    host.plugin.stop()
    with refusing_plugin(host.plugin.socket):
        host.engine.docker("rm", "--force", "gone")
    collected = logged(
        host, "its link came back from the container", f"address {before}: released, no container"
    )
    host.plugin.start()
    assert within(PATIENCE, collected), host.plugin.log()
    assert links_of_containers(host) == set()
    assert rows(host) == (1, 1)
    assert_all_talk(host, ["kept"])


def test_addresses_are_freed_after_engine_and_plugin_died(host: DockerHost) -> None:
    """It starts without the plugin and drops its stale endpoints without a call (engine-facts, 8)."""
    host.create("lan", *OUR_IPAM)
    host.start("box", AT_ONCE)
    before = address(host.engine, "box")
    host.engine.kill()
    host.plugin.stop()
    host.engine.start(seconds=150)
    assert endpoints(host.engine) == set()
    collected = logged(host, "; the engine does not know it any more)", f"address {before}: released")
    host.plugin.start()
    assert within(PATIENCE, collected), host.plugin.log()
    assert rows(host) == (0, 0)
    host.engine.docker("start", "box")
    assert_all_talk(host, ["box"])


def test_network_removed_meanwhile_is_removed(host: DockerHost) -> None:
    """Its pool goes with it; another one, of which the engine has not spoken for as long, stays."""
    host.create("lan", *OUR_IPAM)
    host.create("kept", *OUR_IPAM)
    seen = host.network_id("lan")
    time.sleep(GRACE_PERIODS.idle)
    host.plugin.stop()
    with refusing_plugin(host.plugin.socket):
        host.engine.docker("network", "rm", "lan")
    removed = logged(
        host,
        f"network {seen[:12]}: removed, because the engine removed it",
        "it has no network in the engine",
    )
    host.plugin.start()
    assert within(PATIENCE, removed), host.plugin.log()
    host.plugin.stop()
    found = host.rows()
    host.plugin.start()
    assert [row[0] for row in found["networks"]] == [host.network_id("kept")]
    assert len(found["pools"]) == 1
    host.start("box", AT_ONCE, network="kept")
    assert_all_talk(host, ["box"], network="kept")


def test_pool_of_a_network_that_was_never_created_goes(host: DockerHost) -> None:
    """The engine is killed between RequestPool and CreateNetwork: while auxiliary addresses are looked for on the LAN."""
    auxiliary = [f"--aux-address=nas{number}=192.168.77.{number}" for number in (210, 211, 212)]
    create = ("network", "create", f"--driver={host.plugin.name}", *OUR_IPAM, *auxiliary, "lan")
    probed = "arp and (host 192.168.77.210 or host 192.168.77.211 or host 192.168.77.212)"
    with ThreadPoolExecutor(1) as pool, host.lan.capture("neighbour", probed, count=1) as capture:
        creating = pool.submit(host.engine.attempt_docker, *create)
        assert capture.lines()
        host.engine.kill()
        assert creating.result().status != 0
    released = logged(host, "released, because it has no network in the engine")
    host.engine.start()
    assert within(PATIENCE, released), host.plugin.log()
    host.plugin.stop()
    assert not any(host.rows().values())
    host.plugin.start()
    host.create("lan", *OUR_IPAM, *auxiliary)
    host.start("box", AT_ONCE)
    assert_all_talk(host, ["box"])


def test_killed_start_leaves_nothing(host: DockerHost) -> None:
    """The engine asked for an address, or for an endpoint too, and died before it wrote that down."""
    host.create("lan", *OUR_IPAM)
    network = host.network_id("lan")
    host.plugin.stop()
    ((pool, *_),) = host.rows()["pools"]
    host.plugin.start()
    for number in (200, 201):
        asked = {
            "PoolID": pool,
            "Address": f"192.168.77.{number}",
            "Options": {ENDPOINT_NAME: f"box{number}"},
        }
        assert "Error" not in host.plugin.call("IpamDriver.RequestAddress", asked)
    asked = {"NetworkID": network, "EndpointID": "e" * 64, "Interface": {"Address": "192.168.77.200/24"}}
    assert "Err" not in host.plugin.call("NetworkDriver.CreateEndpoint", asked)
    assert len(links_of_containers(host)) == 1
    collected = logged(host, "address 192.168.77.200: released", "address 192.168.77.201: released")
    assert within(PATIENCE, collected), host.plugin.log()
    assert links_of_containers(host) == set()
    assert rows(host) == (0, 0)
    for method in ("NetworkDriver.Leave", "NetworkDriver.DeleteEndpoint"):
        assert host.plugin.call(method, {"NetworkID": network, "EndpointID": "e" * 64}) == {}
    assert host.plugin.call("IpamDriver.ReleaseAddress", {"PoolID": pool, "Address": "192.168.77.200"}) == {}


def test_without_an_engine_only_provably_unused_things_go(engine: Engine) -> None:
    """A running container, and one whose own root has set its link down, keep what they have."""
    with host_beside(engine, "--docker-host", "none") as host:
        host.create("lan", *OUR_IPAM)
        boxes = {name: host.start(name, AT_ONCE) for name in ("running", "down", "back", "nowhere")}
        before = {name: address(engine, name) for name in boxes}
        boxes["down"].run("ip", "link", "set", "eth0", "down")
        host.plugin.stop()
        with refusing_plugin(host.plugin.socket):
            engine.docker("rm", "--force", "back")
            (lies_about,) = links_of_containers(host)
            engine.docker("rm", "--force", "nowhere")
        (nowhere,) = links_of_containers(host) - {lies_about}
        host.lan.run_in("host", "ip", "link", "delete", nowhere)
        collected = logged(
            host,
            "its link came back from the container",
            "its link is in no network namespace any more",
            f"address {before['back']}: released, no container",
            f"address {before['nowhere']}: released, no container",
        )
        host.plugin.start()
        assert within(PATIENCE, collected), host.plugin.log()
        time.sleep(2 * GRACE_PERIODS.idle)
        assert links_of_containers(host) == set()
        assert rows(host) == (2, 2)
        boxes["down"].run("ip", "link", "set", "eth0", "up")
        boxes["down"].run("ip", "route", "add", "default", "via", "192.168.77.1")
        assert_all_talk(host, ["running", "down"])


def test_endpoints_of_live_restored_containers_stay(usable_engine_version: str) -> None:
    """With live-restore dockerd may be away for long; one of the containers is paused meanwhile."""
    with Lan() as lan, Engine(lan, usable_engine_version, live_restore=True) as engine:
        engine.load_busybox()
        with host_beside(engine) as host:
            host.create("lan", *OUR_IPAM)
            for name in ("box", "paused"):
                host.start(name, AT_ONCE)
            running = address(engine, "box")
            engine.docker("pause", "paused")
            time.sleep(2 * GRACE_PERIODS.idle)
            engine_id = host.network_id("none")
            engine.kill()
            time.sleep(3 * GRACE_PERIODS.idle)
            assert rows(host) == (2, 2)
            time.sleep(3 * GRACE_PERIODS.idle)
            assert lan.ping("neighbour", running)
            engine.start()
            assert host.network_id("none") == engine_id, "an engine is known by it"
            engine.docker("unpause", "paused")
            time.sleep(2 * GRACE_PERIODS.idle)
            assert_all_talk(host, ["box", "paused"])
            assert " removed from parent " not in host.plugin.log()
            assert "no container uses it" not in host.plugin.log()
