"""What every :class:`macvlan_twisted.netlink.kernel.Kernel` must do, the real one and the fake alike.

Subclasses give a fixture ``stand``: a kernel with two NICs ``eth1`` and ``eth2``, both up and of MTU 1500,
of which ``eth1`` has the addresses and the default route of :data:`ROUTER`, and no macvlan links.
"""

import errno
from collections.abc import Callable
from ipaddress import ip_address, ip_interface
from typing import Any, Protocol

import pytest
from attrs import evolve

from macvlan_twisted.errors import LinkError
from macvlan_twisted.netlink.kernel import Kernel, MacvlanLink

OWN_ADDRESS, ROUTER = ip_interface("192.168.77.10/24"), ip_address("192.168.77.1")
PLAIN = MacvlanLink("mvtone", "eth1", "bridge", group=70000, alias="whose/it/is")
MAC, OTHER_MAC = "7a:42:c0:a8:4d:05", "7a:42:c0:a8:4d:06"


class KernelFixture(Protocol):
    """A kernel, and what an engine does to its links."""

    @property
    def kernel(self) -> Kernel:
        """The kernel under test."""

    def move_away(self, name: str, *, up: bool = False) -> None:
        """Move a link into another namespace, as the engine does after Join, and perhaps bring it up there."""

    def move_back(self, name: str) -> None:
        """Move it back, as the engine does after Leave."""

    def in_threads(self, number: int, work: Callable[[int], None]) -> None:
        """Call `work` with 0, 1 ... in `number` threads at once, and wait until these threads have ended."""


def names(kernel: Kernel) -> set[str]:
    """Return the names of all links."""
    return {link.name for link in kernel.links()}


class KernelContract:
    """The tests themselves."""

    def test_host_links_are_listed(self, stand: KernelFixture) -> None:
        nic = stand.kernel.find("eth1")
        assert nic is not None
        assert (nic.name, nic.up, nic.mtu, nic.lower_index, nic.vlan_id) == ("eth1", True, 1500, 0, None)
        assert (nic.is_wireless, nic.bridge, nic.group, nic.alias) == (False, None, 0, "")
        assert len(nic.mac.split(":")) == 6
        assert stand.kernel.find("eth1") in stand.kernel.links()
        assert {"lo", "eth1", "eth2"} <= names(stand.kernel)
        assert stand.kernel.find("nosuch") is None
        assert [stand.kernel.exists(name) for name in ("eth1", "nosuch")] == [True, False]

    def test_default_routes_are_found(self, stand: KernelFixture) -> None:
        routes = [each for each in stand.kernel.default_routes() if each.gateway == ROUTER]
        assert [each.link for each in routes] == ["eth1"]
        assert OWN_ADDRESS in stand.kernel.addresses_of("eth1")
        assert OWN_ADDRESS not in stand.kernel.addresses_of("eth2")

    @pytest.mark.parametrize("mode", ["bridge", "private", "vepa", "passthru"])
    def test_mode_is_as_requested(self, stand: KernelFixture, mode: str) -> None:
        stand.kernel.add_macvlan(evolve(PLAIN, mode=mode))
        found = stand.kernel.read_macvlan("mvtone")
        assert found is not None
        assert (found.name, found.parent, found.mode) == ("mvtone", "eth1", mode)
        assert (found.group, found.alias, found.mtu) == (70000, "whose/it/is", 1500)

    @pytest.mark.parametrize(
        "asked",
        [
            {"mtu": 1400},
            {"mac": MAC},
            {"mode": "source", "source_macs": (MAC, OTHER_MAC)},
            {"broadcast_queue_length": 2000},
            {"broadcast_limit": 7},
            {"broadcast_limit": -1},
            {"mode": "passthru", "nopromisc": True},
        ],
        ids="+".join,
    )
    def test_options_take_effect(self, stand: KernelFixture, asked: dict[str, Any]) -> None:
        stand.kernel.add_macvlan(evolve(PLAIN, **asked))
        found = stand.kernel.read_macvlan("mvtone")
        assert found is not None
        found = evolve(found, source_macs=tuple(sorted(found.source_macs)))  # a set, to the kernel
        assert {name: getattr(found, name) for name in asked} == asked

    def test_new_link_is_down_with_the_requested_facts(self, stand: KernelFixture) -> None:
        """An up link would send on the LAN before it is a container's."""
        stand.kernel.add_macvlan(evolve(PLAIN, mac=MAC, mtu=1400), prove_mac_free=True)
        nic, link = stand.kernel.find("eth1"), stand.kernel.find("mvtone")
        assert nic is not None
        assert link is not None
        assert (link.kind, link.mac, link.mtu, link.up) == ("macvlan", MAC, 1400, False)
        assert (link.group, link.alias, link.lower_index) == (70000, "whose/it/is", nic.index)

    def test_links_without_a_mac_get_distinct_ones(self, stand: KernelFixture) -> None:
        for name in ("mvtone", "mvttwo"):
            stand.kernel.add_macvlan(evolve(PLAIN, name=name))
        macs = {link.mac for link in stand.kernel.links() if link.group == 70000}
        assert len(macs) == 2
        assert all(int(mac[:2], 16) & 3 == 2 for mac in macs), "not unicast and locally administered"

    def test_reading_an_absent_macvlan_returns_none(self, stand: KernelFixture) -> None:
        assert stand.kernel.read_macvlan("nosuch") is None

    def refused(
        self, stand: KernelFixture, port: MacvlanLink, number: int, message: str, *, prove: bool = False
    ) -> None:
        """Expect this errno and message, and unchanged links."""
        before = {link.name: link for link in stand.kernel.links()}
        with pytest.raises(LinkError, match=message) as caught:
            stand.kernel.add_macvlan(port, prove_mac_free=prove)
        assert errno.errorcode.get(caught.value.errno) == errno.errorcode[number]
        assert {link.name: link for link in stand.kernel.links()} == before, "something was left or taken"

    @pytest.mark.parametrize("taken", ["lo", "eth2", "mvtone"])
    def test_existing_name_is_refused_and_its_link_stays(self, stand: KernelFixture, taken: str) -> None:
        stand.kernel.add_macvlan(evolve(PLAIN, alias=""))
        said = f"{taken} on eth1: a link of that name exists already and is not touched"
        self.refused(stand, evolve(PLAIN, name=taken, mac=MAC), errno.EEXIST, said)
        self.refused(stand, evolve(PLAIN, name=taken, mac=MAC), errno.EEXIST, said, prove=True)

    def test_missing_parent_is_refused(self, stand: KernelFixture) -> None:
        self.refused(stand, evolve(PLAIN, parent="eth9"), errno.ENODEV, "link eth9 is not there")

    def test_wrong_value_is_refused_and_leaves_no_link(self, stand: KernelFixture) -> None:
        self.refused(stand, evolve(PLAIN, mtu=1501), errno.EINVAL, "Invalid argument")
        self.refused(stand, evolve(PLAIN, name="mvt4567890123456"), errno.ERANGE, "mvt4567890123456 on eth1")
        self.refused(stand, evolve(PLAIN, mac="01:00:5e:00:00:01"), errno.EADDRNOTAVAIL, "mvtone on eth1")

    @pytest.mark.parametrize(("first", "second"), [("passthru", "bridge"), ("bridge", "passthru")])
    def test_passthru_needs_the_parent_alone(self, stand: KernelFixture, first: str, second: str) -> None:
        stand.kernel.add_macvlan(evolve(PLAIN, name="mvtfirst", mode=first))
        self.refused(stand, evolve(PLAIN, mode=second), errno.EINVAL, "mvtone on eth1")
        stand.kernel.add_macvlan(evolve(PLAIN, mode=second, parent="eth2"))
        assert stand.kernel.delete("mvtfirst")
        stand.kernel.add_macvlan(evolve(PLAIN, name="mvttwo", mode=second))

    def test_other_modes_share_a_parent(self, stand: KernelFixture) -> None:
        for mode in ("private", "vepa", "bridge", "source"):
            stand.kernel.add_macvlan(evolve(PLAIN, name=f"mvt{mode}", mode=mode))
        assert len(stand.kernel.members_of_group(70000)) == 4

    @pytest.mark.parametrize("elsewhere", [False, True])
    def test_mac_in_use_is_refused(self, stand: KernelFixture, elsewhere: bool) -> None:
        """A container's link is in another namespace: only the kernel still knows its MAC."""
        stand.kernel.add_macvlan(evolve(PLAIN, name="mvtfirst", mac=MAC))
        if elsewhere:
            stand.move_away("mvtfirst", up=True)
        else:
            stand.kernel.set_up("mvtfirst")
        self.refused(stand, evolve(PLAIN, mac=MAC), errno.EADDRINUSE, "mvtone on eth1", prove=True)
        stand.kernel.add_macvlan(evolve(PLAIN, mac=MAC, parent="eth2"), prove_mac_free=True)
        stand.kernel.delete("mvtone")
        stand.kernel.add_macvlan(evolve(PLAIN, mac=MAC))
        assert stand.kernel.find("mvtone") is not None, "refused though nobody asked for a proof"

    def test_mac_of_the_nic_is_in_use(self, stand: KernelFixture) -> None:
        nic = stand.kernel.find("eth1")
        assert nic is not None
        self.refused(stand, evolve(PLAIN, mac=nic.mac), errno.EADDRINUSE, "mvtone on eth1", prove=True)

    def test_mac_of_a_down_link_is_free(self, stand: KernelFixture) -> None:
        """Retired links are down, and their MACs must be free at once."""
        stand.kernel.add_macvlan(evolve(PLAIN, name="mvtfirst", mac=MAC))
        stand.kernel.set_up("mvtfirst")
        assert stand.kernel.set_group("mvtfirst", 70001)
        stand.kernel.add_macvlan(evolve(PLAIN, mac=MAC), prove_mac_free=True)

    def test_marks_survive_in_the_container(self, stand: KernelFixture) -> None:
        stand.kernel.add_macvlan(evolve(PLAIN, mac=MAC))
        stand.move_away("mvtone", up=True)
        assert stand.kernel.find("mvtone") is None
        assert not stand.kernel.exists("mvtone")
        assert stand.kernel.read_macvlan("mvtone") is None
        assert stand.kernel.members_of_group(70000) == []
        stand.move_back("mvtone")
        link = stand.kernel.find("mvtone")
        assert link is not None
        assert (link.group, link.alias, link.mac, link.up) == (70000, "whose/it/is", MAC, False)

    def test_containers_link_is_seen_from_the_host(self, stand: KernelFixture) -> None:
        """Up or down, with its alias and MAC; and neither the host's own links nor one that is back."""
        for number, name in enumerate(("mvtone", "mvttwo", "mvthere")):
            stand.kernel.add_macvlan(
                evolve(PLAIN, name=name, alias=f"whose/{name}", mac=f"{MAC[:-2]}{number:02x}")
            )
        stand.move_away("mvtone", up=True)
        stand.move_away("mvttwo")
        found = {each.alias: each for each in stand.kernel.links_elsewhere() if each.alias}
        assert {alias: (each.mac, each.up) for alias, each in found.items()} == {
            "whose/mvtone": (f"{MAC[:-2]}00", True),
            "whose/mvttwo": (f"{MAC[:-2]}01", False),
        }
        assert {"mvthere"} == {name for name in stand.kernel.names() if name.startswith("mvt")}
        stand.move_back("mvtone")
        assert "whose/mvtone" not in {each.alias for each in stand.kernel.links_elsewhere()}
        assert names(stand.kernel) == set(stand.kernel.names())

    def test_retired_link_is_down_and_in_its_group(self, stand: KernelFixture) -> None:
        stand.kernel.add_macvlan(PLAIN)
        stand.kernel.set_up("mvtone")
        assert [link.up for link in stand.kernel.links() if link.group == 70000] == [True]
        assert [link.name for link in stand.kernel.members_of_group(70000)] == ["mvtone"]
        assert stand.kernel.set_group("mvtone", 70001)
        assert stand.kernel.members_of_group(70000) == []
        assert [link.name for link in stand.kernel.members_of_group(70001)] == ["mvtone"]
        link = stand.kernel.find("mvtone")
        assert link is not None
        assert (link.group, link.up) == (70001, False)

    def test_removing_an_absent_link_succeeds(self, stand: KernelFixture) -> None:
        """The kernel removes a container's link with its namespace, so removal must succeed without it."""
        stand.kernel.add_macvlan(PLAIN)
        assert stand.kernel.delete("mvtone") is True
        assert stand.kernel.find("mvtone") is None
        assert stand.kernel.delete("mvtone") is False
        assert stand.kernel.set_group("mvtone", 70001) is False
        with pytest.raises(LinkError, match="mvtone") as caught:
            stand.kernel.set_up("mvtone")
        assert caught.value.errno == errno.ENODEV

    def test_removing_a_group_takes_its_members_only(self, stand: KernelFixture) -> None:
        for number in range(8):
            group = 70001 if number % 2 else 70002
            stand.kernel.add_macvlan(evolve(PLAIN, name=f"mvt{number}", group=group))
        stand.kernel.delete_group(70001)
        assert stand.kernel.members_of_group(70001) == []
        assert {each.name for each in stand.kernel.members_of_group(70002)} == {
            "mvt0",
            "mvt2",
            "mvt4",
            "mvt6",
        }
        assert {"lo", "eth1", "eth2"} <= names(stand.kernel)

    def test_undeletable_group_is_an_error(self, stand: KernelFixture) -> None:
        before = names(stand.kernel)
        for group, number in ((0, errno.EPERM), (70009, errno.ENODEV)):
            with pytest.raises(LinkError, match=f"group {group}") as caught:
                stand.kernel.delete_group(group)
            assert errno.errorcode.get(caught.value.errno) == errno.errorcode[number]
        stand.kernel.add_macvlan(PLAIN)
        stand.kernel.set_group("lo", 70000)
        with pytest.raises(LinkError, match="group 70000") as caught:
            stand.kernel.delete_group(70000)
        assert caught.value.errno == errno.EOPNOTSUPP
        assert names(stand.kernel) == before | {"mvtone"}, "half of the group went"
        stand.kernel.set_group("lo", 0)
        stand.kernel.set_up("lo")

    def test_parallel_calls_succeed(self, stand: KernelFixture) -> None:
        """Each of eight threads makes fifty links and removes ten of them."""

        def work(thread: int) -> None:
            for number in range(50):
                port = evolve(
                    PLAIN, name=f"mvt{thread}-{number}", mac=f"7a:42:00:00:{thread:02x}:{number:02x}"
                )
                stand.kernel.add_macvlan(port)
                assert stand.kernel.find(port.name) is not None
            for number in range(10):
                assert stand.kernel.delete(f"mvt{thread}-{number}")

        stand.in_threads(8, work)
        members = stand.kernel.members_of_group(70000)
        assert {link.name for link in members} == {f"mvt{t}-{n}" for t in range(8) for n in range(10, 50)}
        assert {link.alias for link in members} == {"whose/it/is"}
        assert {link.mac for link in stand.kernel.links() if link.group == 70000} == {
            f"7a:42:00:00:{thread:02x}:{number:02x}" for thread in range(8) for number in range(10, 50)
        }
