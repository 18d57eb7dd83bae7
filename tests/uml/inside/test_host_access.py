"""Access from the host on parents that the plugin makes: a VLAN, and the dummy link of an internal network."""

import pytest

from tests.lab.engine import Engine
from tests.lab.plugin import Plugin
from tests.uml.inside.networks import create, end, reaches, remove, start
from tests.uml.inside.vlans import NIC, Host

HOST = "10.40.0.99"


@pytest.mark.parametrize("internal", [True, False], ids=["internal", "VLAN"])
def test_vlan_host_access_survives_a_reboot(
    engine: Engine, host: Host, plugin: Plugin, internal: bool
) -> None:
    """What a reboot takes is made again in the right order: first the parent, upon it our link and all else."""
    options = () if internal else (f"parent={NIC}.40",)
    create(engine, "inside", 40, *options, "host_access=true", internal=internal, host_address=HOST)
    start(engine, "one", "inside", "10.40.0.11")
    assert reaches(engine, "one", HOST)
    assert host.lan.ping("host", "10.40.0.11")
    before = host.extra
    plugin.kill()
    (parent,) = {name for name in before if not name.startswith("mvh")}
    host.ip("link", "delete", parent)
    plugin.start()
    assert host.extra == before
    assert [route["dst"] for route in host.lan.routes("host", "proto", "142")] == ["10.40.0.11"]
    end(engine, "one")
    start(engine, "two", "inside", "10.40.0.12")
    assert reaches(engine, "two", HOST)
    assert host.lan.ping("host", "10.40.0.12")
    end(engine, "two")
    remove(engine, "inside")
    assert not host.extra
