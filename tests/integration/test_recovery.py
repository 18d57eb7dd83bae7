"""State is deleted or damaged while containers run; --recover restores it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import need
from tests.integration.containers import AT_ONCE, OUR_IPAM, SUBNET, address, assert_all_talk, endpoints
from tests.integration.dhcp_hosts import NULL, OURS, assert_leased
from tests.lab.commands import wait_until
from tests.lab.dhcp_server import DhcpServer
from tests.lab.docker_host import DockerHost
from tests.lab.requirements import missing_for_dhcp

NICS = 2


def delete(directory: Path) -> None:
    """Remove the whole directory."""
    shutil.rmtree(directory)


def flip(directory: Path) -> None:
    """Change one byte of a row in the database."""
    database = directory / "state.sqlite"
    raw = bytearray(database.read_bytes())
    raw[raw.index(b"192.168.77.")] ^= 1
    database.write_bytes(raw)


def known_endpoints(host: DockerHost) -> set[str]:
    """Return the ids of the endpoints in the plugin's state; the plugin must be stopped."""
    return {str(row[0]) for row in host.rows()["endpoints"]}


@pytest.mark.parametrize("damage", [delete, flip])
def test_containers_are_managed_again_after_recover(
    docker_host: DockerHost, damage: Callable[[Path], None]
) -> None:
    engine, plugin = docker_host.engine, docker_host.plugin
    docker_host.create("lan", *OUR_IPAM, "--opt=host_access=true")
    docker_host.create("wan", "--opt=parent=eth2", "--subnet=10.77.0.0/24", "--gateway=10.77.0.1")
    names = ["box-a", "box-b", "box-c"]
    for name in names:
        docker_host.start(name, AT_ONCE)
    docker_host.start("far", AT_ONCE, network="wan")
    before = {name: address(engine, name) for name in names}
    plugin.stop()
    links = docker_host.links()
    damage(plugin.state_dir)
    with pytest.raises(RuntimeError, match="start once with --recover"):
        plugin.start()
    plugin.start("--recover")
    assert docker_host.links().keys() == links.keys(), "our own links were not known again"
    assert_all_talk(docker_host, names)
    plugin.stop()
    assert known_endpoints(docker_host) == endpoints(engine)
    plugin.start()
    assert_all_talk(docker_host, names)

    engine.docker("stop", "box-a", "far")
    engine.docker("restart", "box-b")
    docker_host.start("box-d", AT_ONCE)
    assert address(engine, "box-d") not in before.values(), "an address in use was handed out"
    engine.docker("start", "box-a", "far")
    engine.docker("network", "disconnect", "lan", "box-c")
    engine.docker("network", "connect", "lan", "box-c")
    assert_all_talk(docker_host, [*names, "box-d"])
    plugin.stop()
    assert known_endpoints(docker_host) == endpoints(engine)
    plugin.start()


def test_recover_without_an_engine_is_refused(docker_host: DockerHost) -> None:
    plugin = docker_host.plugin
    docker_host.create("lan", *OUR_IPAM)
    plugin.stop()
    flip(plugin.state_dir)
    before = {each.name: each.read_bytes() for each in plugin.state_dir.iterdir()}
    with pytest.raises(RuntimeError, match="start Docker first"):
        plugin.start("--recover", "--docker-host=unix:///tmp/nobody.sock")
    assert {each.name: each.read_bytes() for each in plugin.state_dir.iterdir()} == before
    plugin.start("--recover")


def test_networks_of_one_subnet_stay_apart_after_recover(docker_host: DockerHost) -> None:
    """Their PoolIDs contain the same subnet, so the rebuilt pool serves all of them until the last one is removed."""
    engine, plugin = docker_host.engine, docker_host.plugin
    for name in ("lan", "lan2"):
        docker_host.create(name, "--ipam-driver=macvlan-twisted", *SUBNET)
    docker_host.start("box-a", AT_ONCE)
    docker_host.start("box-b", AT_ONCE, network="lan2")
    plugin.stop()
    shutil.rmtree(plugin.state_dir)
    plugin.start("--recover")
    engine.docker("rm", "--force", "box-b")
    engine.docker("network", "rm", "lan2")
    docker_host.start("box-c", AT_ONCE)
    assert_all_talk(docker_host, ["box-a", "box-c"])
    engine.docker("stop", "box-a")
    engine.docker("start", "box-a")
    assert_all_talk(docker_host, ["box-a", "box-c"])


@pytest.mark.one_engine
def test_older_copy_of_the_state_is_refused_and_recovered(docker_host: DockerHost) -> None:
    """By the generation recorded outside of the directory, else by a younger link of ours."""
    engine, plugin = docker_host.engine, docker_host.plugin
    docker_host.create("lan", *OUR_IPAM)
    docker_host.start("box-a", AT_ONCE)
    plugin.stop()
    older = plugin.directory / "older"
    shutil.copytree(plugin.state_dir, older)
    plugin.start()
    docker_host.create("wan", "--opt=parent=eth2", "--ipam-driver=macvlan-twisted", "--subnet=10.77.0.0/24")
    docker_host.start("box-b", AT_ONCE)
    docker_host.start("far", AT_ONCE, network="wan")
    engine.docker("rm", "--force", "box-a")
    before = {name: address(engine, name) for name in ("box-b",)}
    plugin.stop()
    shutil.rmtree(plugin.state_dir)
    shutil.copytree(older, plugin.state_dir)
    with pytest.raises(RuntimeError, match="an older copy was restored"):
        plugin.start()
    shutil.rmtree(plugin.directory / "run")
    with pytest.raises(RuntimeError, match="state is older than link mvh"):
        plugin.start()
    plugin.start("--recover")
    docker_host.start("box-c", AT_ONCE)
    docker_host.start("far-too", AT_ONCE, network="wan")
    assert address(engine, "box-c") != before["box-b"]
    assert_all_talk(docker_host, ["box-b", "box-c"])
    engine.docker("restart", "box-b", "far")
    assert_all_talk(docker_host, ["box-b", "box-c"])
    engine.docker("rm", "--force", "far", "far-too")
    engine.docker("network", "rm", "wan")


@pytest.mark.one_engine
@pytest.mark.plugin_arguments("--debug")
def test_leases_are_renewed_after_recover(docker_host: DockerHost) -> None:
    """The server confirms them by address and MAC; they are released with their containers."""
    need(missing_for_dhcp())
    plugin = docker_host.plugin
    with DhcpServer(docker_host.lan) as server:
        docker_host.create("ours", *OURS)
        docker_host.create("null", *NULL)
        first = docker_host.start("box-a", AT_ONCE, network="ours")
        second = docker_host.start("box-b", AT_ONCE, network="null")
        leased = {assert_leased(server, first), assert_leased(server, second)}
        plugin.stop()
        shutil.rmtree(plugin.state_dir)
        plugin.start("--recover")
        wait_until(lambda: plugin.log().count(": renewed ") >= 2, 20, "both leases to be confirmed")
        third = docker_host.start("box-c", AT_ONCE, network="ours")
        assert assert_leased(server, third) not in leased
        docker_host.engine.docker("restart", "box-a", "box-b")
        for name in ("box-a", "box-b", "box-c"):
            docker_host.engine.docker("rm", "--force", name)
        wait_until(lambda: server.leases() == [], 20, "the end of all leases")
