"""Containers on VLANs: whom they reach, and what is on the wire."""

from tests.lab.engine import Engine
from tests.lab.plugin import Plugin
from tests.uml.inside.networks import create, end, reaches, remove, start
from tests.uml.inside.vlans import NIC, Host, station, tags_of


def test_vlan_containers_reach_a_tagged_neighbour_tagged(engine: Engine, host: Host, plugin: Plugin) -> None:
    """Two containers on VLAN 20 reach each other and the station there, and every frame of theirs has the tag."""
    neighbour = station(host.lan, "20", "10.20.0.1/24")
    create(engine, "n20", 20, f"parent={NIC}.20")
    mac = start(engine, "one", "n20", "10.20.0.11")
    start(engine, "two", "n20", "10.20.0.12")
    with host.lan.capture("neighbour", f"ether src {mac}", count=2) as heard:
        assert reaches(engine, "one", neighbour)
        assert [tags_of(line) for line in heard] == [[20], [20]]
    assert host.lan.ping("neighbour", "10.20.0.12")
    assert reaches(engine, "one", "10.20.0.12")
    end(engine, "one", "two")
    remove(engine, "n20")
    assert not host.extra


def test_nested_vlan_frames_carry_both_tags(engine: Engine, host: Host, plugin: Plugin) -> None:
    """Both tags are on the wire, outermost first, also after a restart of the service."""
    neighbour = station(host.lan, "21.30", "10.21.0.1/24")
    create(engine, "n21", 21, f"parent={NIC}.21", "vlan_id=30")
    plugin.stop()
    plugin.start()
    mac = start(engine, "deep", "n21", "10.21.0.11")
    with host.lan.capture("neighbour", f"ether src {mac}", count=2) as heard:
        assert reaches(engine, "deep", neighbour)
        assert [tags_of(line) for line in heard] == [[21, 30], [21, 30]]
    end(engine, "deep")
    remove(engine, "n21")
    assert not host.extra
