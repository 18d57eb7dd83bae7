"""Whether the guest is worth booting: without these features every other test here proves nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.commands import run
from tests.lab.lan import Lan
from tests.uml.inside.vlans import UPLINK, station, tags_of, vlan_of


@contextmanager
def links(lan: Lan, *described: str) -> Iterator[None]:
    """Links of the docker host, as ``ip link add`` is told of them; the first one must carry the others."""
    for words in described:
        lan.run_in("host", "ip", "link", "add", *words.split())
    try:
        yield
    finally:
        name = described[0].split()
        lan.run_in("host", "ip", "link", "delete", name[name.index("name") + 1])


def use(lan: Lan, address: str, name: str, *below: str) -> None:
    """Give a link of the docker host an address, and set it and what is below it up."""
    lan.run_in("host", "ip", "address", "add", address, "dev", name)
    for each in (*below, name):
        lan.run_in("host", "ip", "link", "set", each, "up")


def test_the_guest_lacks_802_1q(lan: Lan) -> None:
    """A tagged link carries its tag onto the wire, and the station behind that tag answers."""
    address = station(lan, "20", "10.20.0.1/24")
    with links(lan, f"link {UPLINK} name v20 type vlan id 20"):
        use(lan, "10.20.0.2/24", "v20")
        assert vlan_of(lan, "v20") == ("802.1Q", 20, UPLINK)
        with lan.capture("neighbour", "vlan and icmp", count=1) as heard:
            assert lan.ping("host", address)
            assert [tags_of(line) for line in heard] == [[20]]


@pytest.mark.parametrize("outer", ["802.1Q", "802.1ad"])
def test_the_guest_lacks_a_vlan_within_a_vlan(lan: Lan, outer: str) -> None:
    """Both kinds of outer tag: 802.1ad is the standard's, 802.1Q twice is what switches are often told."""
    tags, subnet = ("21.30", "10.21") if outer == "802.1Q" else ("22ad.30", "10.22")
    address = station(lan, tags, f"{subnet}.0.1/24")
    outer_id = tags[:2]
    with links(
        lan,
        f"link {UPLINK} name outer type vlan protocol {outer} id {outer_id}",
        "link outer name inner type vlan id 30",
    ):
        use(lan, f"{subnet}.0.2/24", "inner", "outer")
        assert vlan_of(lan, "outer") == (outer, int(outer_id), UPLINK)
        with lan.capture("neighbour", f"vlan {outer_id} and vlan 30 and icmp", count=1) as heard:
            assert lan.ping("host", address)
            assert [tags_of(line) for line in heard] == [[int(outer_id), 30]]


@pytest.mark.parametrize("parent", ["name p0 type dummy", f"link {UPLINK} name p0 type vlan id 7"])
@pytest.mark.parametrize("kind", ["macvlan mode bridge", "ipvlan mode l2"])
def test_the_guest_lacks_a_kind_of_link_or_of_parent(lan: Lan, parent: str, kind: str) -> None:
    """Both kinds of child upon every kind of parent that the running kernel may not know."""
    with links(lan, parent, f"link p0 name c0 type {kind}"):
        assert lan.host_links()["c0"]["linkinfo"]["info_kind"] == kind.partition(" ")[0]
    assert "c0" not in lan.host_links(), "a child outlived its parent"


@pytest.mark.parametrize("place", ["/", "/etc", str(Path(__file__).parent)])
@pytest.mark.parametrize("mounted", ["ro", "rw"])
def test_the_guest_can_write_to_the_hosts_files(mounted: str, place: str) -> None:
    """What the tests write must end with the guest, even if they remounted its root: see jail.sh."""
    run("mount", "-o", f"remount,{mounted}", "/")
    try:
        with pytest.raises(OSError, match="Read-only file system"):
            Path(place, "macvlan-twisted-was-here").touch()
    finally:
        run("mount", "-o", "remount,ro", "/")
