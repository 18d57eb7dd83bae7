"""``--create-network NAME``: the service makes its network in the engine, by itself and once."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.integration.containers import AT_ONCE, assert_all_talk
from tests.lab.commands import wait_until
from tests.lab.docker_host import DockerHost
from tests.lab.engine import Engine
from tests.lab.plugin import DEFAULTS, Plugin

TROUBLE = ("#error", "#warn", "#critical", "Traceback")


@contextmanager
def service(engine: Engine, *words: str, docker_host: str | None = None) -> Iterator[DockerHost]:
    """Run our service with ``--create-network auto`` beside the engine, and insist that nothing is left in the end."""
    host = docker_host or f"unix://{engine.socket}"
    ranged = ("--ip-range", "192.168.77.128/25", "--create-network", "auto", "--docker-host", host, *words)
    with Plugin(engine.lan, engine.plugins_dir, arguments=(*DEFAULTS, *ranged)) as plugin:
        made = DockerHost(engine, plugin)
        try:
            yield made
        finally:
            if not engine.running:
                engine.start()
            if plugin.running:  # without it the engine waits fifteen seconds for every call
                engine.clear()
        plugin.stop()
        assert made.remains() == []


def settled(plugin: Plugin) -> bool:
    """Whether the service has created or found the network since its last start."""
    since = plugin.log().rpartition("driver initialised")[2]
    return "network auto: created" in since or "network auto: exists already" in since


def test_network_is_created_once_with_the_lans_subnet(engine: Engine) -> None:
    with service(engine) as host:
        wait_until(lambda: "auto" in host.networks(), 20, "the network")
        (network,) = engine.docker_json("network", "inspect", "auto")
        assert network["Driver"] == network["IPAM"]["Driver"] == "macvlan-twisted"
        gateways = {config["Subnet"]: config["Gateway"] for config in network["IPAM"]["Config"]}
        assert gateways == {"192.168.77.0/24": "192.168.77.1", "fd77::/64": "fd77::1"}, "the host's own LAN"
        assert "192.168.77.128/25" in [config.get("IPRange") for config in network["IPAM"]["Config"]]
        assert network["Options"]["parent"] == "eth1"
        container = host.start("box", AT_ONCE, network="auto")
        assert container.routers() == {"192.168.77.1", "fd77::1"}
        assert container.ping("192.168.77.2")
        assert container.ping("fd77::2")
        engine.docker("run", "--rm", "--network=auto", "--ip=192.168.77.77", "busybox", "true")
        wait_until(lambda: settled(host.plugin), 20, "its end")
        assert not [each for each in TROUBLE if each in host.plugin.log()]

        host.plugin.stop()
        host.plugin.start()
        wait_until(lambda: settled(host.plugin), 20, "the notice that the network exists")
        (again,) = engine.docker_json("network", "inspect", "auto")
        assert again["Id"] == network["Id"], "it was made anew under a running container"
        assert host.engine.docker("network", "ls", "--quiet", "--filter=name=auto").count("\n") == 1


@pytest.mark.one_engine
def test_absent_engine_is_awaited_without_complaint(engine: Engine) -> None:
    """The engine may start after the plugin: under systemd it does."""
    engine.stop()
    with service(engine) as host:
        wait_until(lambda: "network auto: will be created as soon as" in host.plugin.log(), 20, "the wait")
        time.sleep(1.5)  # a second question, at least
        assert not [each for each in TROUBLE if each in host.plugin.log()]
        assert len(host.plugin.log().splitlines()) < 20, "each question has a line"
        engine.start()
        wait_until(lambda: "auto" in host.networks(), 60, "the network")
        wait_until(lambda: settled(host.plugin), 20, "its end")
        assert not [each for each in TROUBLE if each in host.plugin.log()]


@pytest.mark.one_engine
def test_existing_network_is_left_unchanged(engine: Engine) -> None:
    engine.docker(
        "network", "create", "--driver=macvlan", "--opt=parent=eth1", "--subnet=10.8.0.0/24", "auto"
    )
    (before,) = engine.docker_json("network", "inspect", "auto")
    with service(engine) as host:
        wait_until(lambda: settled(host.plugin), 20, "the notice that the network exists")
        assert "network auto: exists already" in host.plugin.log()
        assert engine.docker_json("network", "inspect", "auto") == [before]


@pytest.mark.one_engine
def test_removed_network_returns_at_the_next_start_only(engine: Engine) -> None:
    with service(engine) as host:
        wait_until(lambda: settled(host.plugin), 20, "the network")
        engine.docker("network", "rm", "auto")
        time.sleep(2)
        host.create("other", "--opt=parent=eth1", "--subnet=10.8.0.0/24")
        assert "auto" not in host.networks()
        host.plugin.stop()
        host.plugin.start()
        wait_until(lambda: "auto" in host.networks(), 20, "the network")
        host.start("box", AT_ONCE, network="auto")
        assert_all_talk(host, ["box"], network="auto")


@pytest.mark.one_engine
def test_service_can_stop_while_it_waits_for_the_engine(engine: Engine) -> None:
    with service(engine, docker_host="unix:///nonexistent/docker.sock") as host:
        wait_until(lambda: "network auto: will be created as soon as" in host.plugin.log(), 20, "the wait")
        host.plugin.stop()  # insists on exit status 0
        assert not [each for each in TROUBLE if each in host.plugin.log()]
        host.plugin.start()
        host.create("lan", "--opt=parent=eth1", "--subnet=10.8.0.0/24")
