"""The engine's own macvlan driver on a VLAN: proves the engine, the LAN and the tap on it, not our plugin."""

from tests.lab.engine import Engine
from tests.uml.inside.vlans import NIC, Host, station, tags_of


def test_builtin_driver_reaches_a_tagged_neighbour(engine: Engine, host: Host) -> None:
    """If this fails, look at the harness before you look at the plugin."""
    neighbour = station(host.lan, "20", "10.20.0.1/24")
    host.ip("link", "set", NIC, "up")  # the builtin driver does not
    engine.docker("network", "create", "-d", "macvlan", "--subnet=10.20.0.0/24", "--gateway=10.20.0.1",
                  "-o", f"parent={NIC}.20", "builtin20")  # fmt: skip
    with host.lan.capture("neighbour", "vlan and icmp", count=1) as heard:
        engine.docker("run", "--rm", "--network=builtin20", "busybox", "ping", "-c1", "-W5", neighbour)
        assert [tags_of(line) for line in heard] == [[20]]
    engine.docker("network", "rm", "builtin20")
    assert not host.extra, "the engine removes the VLAN that it made"
