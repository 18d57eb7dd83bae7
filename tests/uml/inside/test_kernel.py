"""Whether the guest is worth booting: without these features every other test here proves nothing."""

from pathlib import Path

import pytest

from tests.lab.commands import run
from tests.lab.lan import Lan
from tests.uml.inside.vlans import NIC, Host, station, tags_of


def use(host: Host, address: str, name: str, *below: str) -> None:
    """Give a link of the docker host an address, and set it and what is below it up."""
    host.ip("address", "add", address, "dev", name)
    for each in (NIC, *below, name):
        host.ip("link", "set", each, "up")


def test_guest_has_802_1q(lan: Lan, host: Host) -> None:
    """A tagged link carries its tag onto the wire, and the station behind that tag answers."""
    address = station(lan, "20", "10.20.0.1/24")
    host.add_vlan("v20", NIC, 20)
    use(host, "10.20.0.2/24", "v20")
    assert host.vlan("v20") == ("802.1Q", 20, NIC)
    with lan.capture("neighbour", "vlan and icmp", count=1) as heard:
        assert lan.ping("host", address)
        assert [tags_of(line) for line in heard] == [[20]]


@pytest.mark.parametrize("outer", ["802.1Q", "802.1ad"])
def test_guest_has_nested_vlans(lan: Lan, host: Host, outer: str) -> None:
    """Both kinds of outer tag: 802.1ad is the standard's, 802.1Q twice is what switches are often told."""
    tags, number = ("21.30", 21) if outer == "802.1Q" else ("22ad.30", 22)
    address = station(lan, tags, f"10.{number}.0.1/24")
    host.add_vlan("outer", NIC, number, outer)
    host.add_vlan("inner", "outer", 30)
    use(host, f"10.{number}.0.2/24", "inner", "outer")
    assert host.vlan("outer") == (outer, number, NIC)
    with lan.capture("neighbour", f"vlan {number} and vlan 30 and icmp", count=1) as heard:
        assert lan.ping("host", address)
        assert [tags_of(line) for line in heard] == [[number, 30]]


@pytest.mark.parametrize("parent", ["name p0 type dummy", f"link {NIC} name p0 type vlan id 7"])
@pytest.mark.parametrize("kind", ["macvlan mode bridge", "ipvlan mode l2"])
def test_guest_has_every_kind_of_link(host: Host, parent: str, kind: str) -> None:
    """Both kinds of child upon every kind of parent that the running kernel may not know."""
    host.ip("link", "add", *parent.split())
    host.ip("link", "add", "link", "p0", "name", "c0", "type", *kind.split())
    assert host.links["c0"]["linkinfo"]["info_kind"] == kind.partition(" ")[0]
    host.ip("link", "delete", "p0")
    assert "c0" not in host.links, "a child outlived its parent"


@pytest.mark.parametrize("place", ["/", "/etc", str(Path(__file__).parent)])
@pytest.mark.parametrize("mounted", ["ro", "rw"])
def test_guest_cannot_write_to_the_hosts_files(mounted: str, place: str) -> None:
    """What the tests write must end with the guest, even if they remounted its root: see jail.sh."""
    remount(mounted)
    try:
        with pytest.raises(OSError, match="Read-only file system"):
            Path(place, "macvlan-twisted-was-here").touch()
    finally:
        remount("ro")


def remount(mounted: str) -> None:
    """By mount(2): the guest's root is of type hostfs, whose options the newer fsconfig(2) of util-linux 2.39 does not take."""
    run("env", "LIBMOUNT_FORCE_MOUNT2=always", "mount", "-o", f"remount,{mounted}", "/")
