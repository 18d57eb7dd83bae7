"""Internal networks without a NIC: the plugin makes a dummy link for each."""

import pytest

from tests.lab.docker_host import Container
from tests.lab.engine import Engine
from tests.lab.plugin import Plugin
from tests.uml.inside.networks import create, end, reaches, remove, start
from tests.uml.inside.vlans import NIC, Host


def dummies(host: Host) -> set[str]:
    """The dummy links that were not there at first."""
    links = host.links
    return {name for name in host.extra if links[name].get("linkinfo", {}).get("info_kind") == "dummy"}


def test_internal_containers_reach_each_other_only(engine: Engine, host: Host, plugin: Plugin) -> None:
    """They are upon a link of ours that leads nowhere, and the link goes with the network."""
    create(engine, "inside", 40, internal=True)
    assert len(host.extra) == 1
    (parent,) = dummies(host)
    assert host.is_up(parent)
    assert host.links[parent]["ifalias"].startswith("macvlan-twisted/")
    start(engine, "one", "inside", "10.40.0.11")
    start(engine, "two", "inside", "10.40.0.12")
    assert reaches(engine, "one", "10.40.0.12")
    assert not reaches(engine, "one", host.lan.addresses.neighbour[0].partition("/")[0])
    assert "default" not in Container(engine, "one").run("ip", "route")
    end(engine, "one", "two")
    remove(engine, "inside")
    assert not host.extra


@pytest.mark.usefixtures("plugin")
def test_internal_networks_have_a_link_each(engine: Engine, host: Host) -> None:
    """Each has a link of its own, or else they would hear each other."""
    create(engine, "inside1", 40, internal=True)
    create(engine, "inside2", 41, internal=True)
    assert len(dummies(host)) == 2
    remove(engine, "inside1")
    assert len(dummies(host)) == 1
    remove(engine, "inside2")
    assert not host.extra


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_restarted_service_remembers_its_dummy_link(
    engine: Engine, host: Host, plugin: Plugin, how: str
) -> None:
    """It stays over a restart, comes back after a reboot, and goes with its network."""
    create(engine, "inside", 40, internal=True)
    before = host.extra
    (plugin.stop if how == "stop" else plugin.kill)()
    if how == "kill":
        host.ip("link", "delete", *dummies(host))
    plugin.start()
    assert host.extra == before
    remove(engine, "inside")
    assert not host.extra


@pytest.mark.usefixtures("plugin")
def test_internal_network_with_a_parent_gets_no_dummy_link(engine: Engine, host: Host) -> None:
    """With ``-o parent`` it is upon the LAN: internal then only means that there is no default route."""
    create(engine, "inside", 40, f"parent={NIC}.40", internal=True)
    assert host.extra == {f"{NIC}.40"}
    remove(engine, "inside")
    assert not host.extra
