"""What every :class:`macvlan_twisted.netlink.kernel.Kernel` must do, the real one and the fake alike.

Subclasses give a fixture ``host``: a kernel with two NICs ``eth1`` and ``eth2``, both up and of MTU 1500,
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

    def test_host_links_are_listed(self, host: KernelFixture) -> None:
        nic = host.kernel.find("eth1")
        assert nic is not None
        assert (nic.name, nic.up, nic.mtu, nic.lower_index, nic.vlan_id) == ("eth1", True, 1500, 0, None)
        assert (nic.is_wireless, nic.bridge, nic.group, nic.alias) == (False, None, 0, "")
        assert len(nic.mac.split(":")) == 6
        assert host.kernel.find("eth1") in host.kernel.links()
        assert {"lo", "eth1", "eth2"} <= names(host.kernel)
        assert host.kernel.find("nosuch") is None
        assert [host.kernel.exists(name) for name in ("eth1", "nosuch")] == [True, False]

    def test_lists_have_the_facts_of_single_links(self, host: KernelFixture) -> None:
        """Also where the group's number is in other facts of other links."""
        host.kernel.add_macvlan(evolve(PLAIN, mac=MAC, mtu=1400))
        host.kernel.add_macvlan(evolve(PLAIN, name="mvttwo", group=1400, alias=""))
        assert [host.kernel.find(link.name) for link in host.kernel.links()] == host.kernel.links()
        assert host.kernel.members_of_group(70000) == [host.kernel.find("mvtone")]
        assert host.kernel.members_of_group(1400) == [host.kernel.find("mvttwo")]
        host.kernel.delete("mvttwo")

    def test_default_routes_are_found(self, host: KernelFixture) -> None:
        routes = [each for each in host.kernel.default_routes() if each.gateway == ROUTER]
        assert [each.link for each in routes] == ["eth1"]
        assert OWN_ADDRESS in host.kernel.addresses_of("eth1")
        assert OWN_ADDRESS not in host.kernel.addresses_of("eth2")

    @pytest.mark.parametrize("mode", ["bridge", "private", "vepa", "passthru"])
    def test_mode_is_as_requested(self, host: KernelFixture, mode: str) -> None:
        host.kernel.add_macvlan(evolve(PLAIN, mode=mode))
        found = host.kernel.read_macvlan("mvtone")
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
    def test_options_take_effect(self, host: KernelFixture, asked: dict[str, Any]) -> None:
        host.kernel.add_macvlan(evolve(PLAIN, **asked))
        found = host.kernel.read_macvlan("mvtone")
        assert found is not None
        found = evolve(found, source_macs=tuple(sorted(found.source_macs)))  # a set, to the kernel
        assert {name: getattr(found, name) for name in asked} == asked

    def test_new_link_is_down_with_the_requested_facts(self, host: KernelFixture) -> None:
        """An up link would send on the LAN before it is a container's."""
        host.kernel.add_macvlan(evolve(PLAIN, mac=MAC, mtu=1400), prove_mac_free=True)
        nic, link = host.kernel.find("eth1"), host.kernel.find("mvtone")
        assert nic is not None
        assert link is not None
        assert (link.kind, link.mac, link.mtu, link.up) == ("macvlan", MAC, 1400, False)
        assert (link.group, link.alias, link.lower_index) == (70000, "whose/it/is", nic.index)

    def test_links_without_a_mac_get_distinct_ones(self, host: KernelFixture) -> None:
        for name in ("mvtone", "mvttwo"):
            host.kernel.add_macvlan(evolve(PLAIN, name=name))
        macs = {link.mac for link in host.kernel.links() if link.group == 70000}
        assert len(macs) == 2
        assert all(int(mac[:2], 16) & 3 == 2 for mac in macs), "not unicast and locally administered"

    def test_reading_an_absent_macvlan_returns_none(self, host: KernelFixture) -> None:
        assert host.kernel.read_macvlan("nosuch") is None

    def refused(
        self, host: KernelFixture, port: MacvlanLink, number: int, message: str, *, prove: bool = False
    ) -> None:
        """Expect this errno and message, and unchanged links."""
        before = {link.name: link for link in host.kernel.links()}
        with pytest.raises(LinkError, match=message) as caught:
            host.kernel.add_macvlan(port, prove_mac_free=prove)
        assert errno.errorcode.get(caught.value.errno) == errno.errorcode[number]
        assert {link.name: link for link in host.kernel.links()} == before, "something was left or taken"

    @pytest.mark.parametrize("taken", ["lo", "eth2", "mvtone"])
    def test_existing_name_is_refused_and_its_link_stays(self, host: KernelFixture, taken: str) -> None:
        host.kernel.add_macvlan(evolve(PLAIN, alias=""))
        said = f"{taken} on eth1: a link of that name exists already"
        self.refused(host, evolve(PLAIN, name=taken, mac=MAC), errno.EEXIST, said)
        self.refused(host, evolve(PLAIN, name=taken, mac=MAC), errno.EEXIST, said, prove=True)

    def test_missing_parent_is_refused(self, host: KernelFixture) -> None:
        self.refused(host, evolve(PLAIN, parent="eth9"), errno.ENODEV, "link eth9 does not exist")

    def test_wrong_value_is_refused_and_leaves_no_link(self, host: KernelFixture) -> None:
        self.refused(host, evolve(PLAIN, mtu=1501), errno.EINVAL, "Invalid argument")
        self.refused(host, evolve(PLAIN, name="mvt4567890123456"), errno.ERANGE, "mvt4567890123456 on eth1")
        self.refused(host, evolve(PLAIN, mac="01:00:5e:00:00:01"), errno.EADDRNOTAVAIL, "mvtone on eth1")

    @pytest.mark.parametrize(("first", "second"), [("passthru", "bridge"), ("bridge", "passthru")])
    def test_passthru_needs_the_parent_alone(self, host: KernelFixture, first: str, second: str) -> None:
        host.kernel.add_macvlan(evolve(PLAIN, name="mvtfirst", mode=first))
        self.refused(host, evolve(PLAIN, mode=second), errno.EINVAL, "mvtone on eth1")
        host.kernel.add_macvlan(evolve(PLAIN, mode=second, parent="eth2"))
        assert host.kernel.delete("mvtfirst")
        host.kernel.add_macvlan(evolve(PLAIN, name="mvttwo", mode=second))

    def test_other_modes_share_a_parent(self, host: KernelFixture) -> None:
        for mode in ("private", "vepa", "bridge", "source"):
            host.kernel.add_macvlan(evolve(PLAIN, name=f"mvt{mode}", mode=mode))
        assert len(host.kernel.members_of_group(70000)) == 4

    @pytest.mark.parametrize("elsewhere", [False, True])
    def test_mac_in_use_is_refused(self, host: KernelFixture, elsewhere: bool) -> None:
        """A container's link is in another namespace: only the kernel still knows its MAC."""
        host.kernel.add_macvlan(evolve(PLAIN, name="mvtfirst", mac=MAC))
        if elsewhere:
            host.move_away("mvtfirst", up=True)
        else:
            host.kernel.set_up("mvtfirst")
        self.refused(host, evolve(PLAIN, mac=MAC), errno.EADDRINUSE, "mvtone on eth1", prove=True)
        host.kernel.add_macvlan(evolve(PLAIN, mac=MAC, parent="eth2"), prove_mac_free=True)
        host.kernel.delete("mvtone")
        host.kernel.add_macvlan(evolve(PLAIN, mac=MAC))
        assert host.kernel.find("mvtone") is not None, "refused though nobody asked for a proof"

    def test_mac_of_the_nic_is_in_use(self, host: KernelFixture) -> None:
        nic = host.kernel.find("eth1")
        assert nic is not None
        self.refused(host, evolve(PLAIN, mac=nic.mac), errno.EADDRINUSE, "mvtone on eth1", prove=True)

    def test_mac_of_a_down_link_is_free(self, host: KernelFixture) -> None:
        """Retired links are down, and their MACs must be free at once."""
        host.kernel.add_macvlan(evolve(PLAIN, name="mvtfirst", mac=MAC))
        host.kernel.set_up("mvtfirst")
        assert host.kernel.set_group("mvtfirst", 70001)
        host.kernel.add_macvlan(evolve(PLAIN, mac=MAC), prove_mac_free=True)

    def test_marks_survive_in_the_container(self, host: KernelFixture) -> None:
        host.kernel.add_macvlan(evolve(PLAIN, mac=MAC))
        host.move_away("mvtone", up=True)
        assert host.kernel.find("mvtone") is None
        assert not host.kernel.exists("mvtone")
        assert host.kernel.read_macvlan("mvtone") is None
        assert host.kernel.members_of_group(70000) == []
        host.move_back("mvtone")
        link = host.kernel.find("mvtone")
        assert link is not None
        assert (link.group, link.alias, link.mac, link.up) == (70000, "whose/it/is", MAC, False)

    def test_containers_link_is_seen_from_the_host(self, host: KernelFixture) -> None:
        """Up or down, with its alias and MAC; and neither the host's own links nor one that is back."""
        for number, name in enumerate(("mvtone", "mvttwo", "mvthere")):
            host.kernel.add_macvlan(
                evolve(PLAIN, name=name, alias=f"whose/{name}", mac=f"{MAC[:-2]}{number:02x}")
            )
        host.move_away("mvtone", up=True)
        host.move_away("mvttwo")
        found = {each.alias: each for each in host.kernel.links_elsewhere() if each.alias}
        assert {alias: (each.mac, each.up) for alias, each in found.items()} == {
            "whose/mvtone": (f"{MAC[:-2]}00", True),
            "whose/mvttwo": (f"{MAC[:-2]}01", False),
        }
        assert {"mvthere"} == {name for name in host.kernel.names() if name.startswith("mvt")}
        host.move_back("mvtone")
        assert "whose/mvtone" not in {each.alias for each in host.kernel.links_elsewhere()}
        assert names(host.kernel) == set(host.kernel.names())

    def test_retired_link_is_down_and_in_its_group(self, host: KernelFixture) -> None:
        host.kernel.add_macvlan(PLAIN)
        host.kernel.set_up("mvtone")
        assert [link.up for link in host.kernel.links() if link.group == 70000] == [True]
        assert [link.name for link in host.kernel.members_of_group(70000)] == ["mvtone"]
        assert host.kernel.set_group("mvtone", 70001)
        assert host.kernel.members_of_group(70000) == []
        assert [link.name for link in host.kernel.members_of_group(70001)] == ["mvtone"]
        link = host.kernel.find("mvtone")
        assert link is not None
        assert (link.group, link.up) == (70001, False)

    def test_removing_an_absent_link_succeeds(self, host: KernelFixture) -> None:
        """The kernel removes a container's link with its namespace, so removal must succeed without it."""
        host.kernel.add_macvlan(PLAIN)
        assert host.kernel.delete("mvtone") is True
        assert host.kernel.find("mvtone") is None
        assert host.kernel.delete("mvtone") is False
        assert host.kernel.set_group("mvtone", 70001) is False
        with pytest.raises(LinkError, match="mvtone") as caught:
            host.kernel.set_up("mvtone")
        assert caught.value.errno == errno.ENODEV

    def test_removing_a_group_takes_its_members_only(self, host: KernelFixture) -> None:
        for number in range(8):
            group = 70001 if number % 2 else 70002
            host.kernel.add_macvlan(evolve(PLAIN, name=f"mvt{number}", group=group))
        host.kernel.delete_group(70001)
        assert host.kernel.members_of_group(70001) == []
        assert {each.name for each in host.kernel.members_of_group(70002)} == {
            "mvt0",
            "mvt2",
            "mvt4",
            "mvt6",
        }
        assert {"lo", "eth1", "eth2"} <= names(host.kernel)

    def test_undeletable_group_is_an_error(self, host: KernelFixture) -> None:
        before = names(host.kernel)
        for group, number in ((0, errno.EPERM), (70009, errno.ENODEV)):
            with pytest.raises(LinkError, match=f"group {group}") as caught:
                host.kernel.delete_group(group)
            assert errno.errorcode.get(caught.value.errno) == errno.errorcode[number]
        host.kernel.add_macvlan(PLAIN)
        host.kernel.set_group("lo", 70000)
        with pytest.raises(LinkError, match="group 70000") as caught:
            host.kernel.delete_group(70000)
        assert caught.value.errno == errno.EOPNOTSUPP
        assert names(host.kernel) == before | {"mvtone"}, "half of the group went"
        host.kernel.set_group("lo", 0)
        host.kernel.set_up("lo")

    def test_parallel_calls_succeed(self, host: KernelFixture) -> None:
        """Each of eight threads makes fifty links and removes ten of them."""

        def work(thread: int) -> None:
            for number in range(50):
                port = evolve(
                    PLAIN, name=f"mvt{thread}-{number}", mac=f"7a:42:00:00:{thread:02x}:{number:02x}"
                )
                host.kernel.add_macvlan(port)
                assert host.kernel.find(port.name) is not None
            for number in range(10):
                assert host.kernel.delete(f"mvt{thread}-{number}")

        host.in_threads(8, work)
        members = host.kernel.members_of_group(70000)
        assert {link.name for link in members} == {f"mvt{t}-{n}" for t in range(8) for n in range(10, 50)}
        assert {link.alias for link in members} == {"whose/it/is"}
        assert {link.mac for link in host.kernel.links() if link.group == 70000} == {
            f"7a:42:00:00:{thread:02x}:{number:02x}" for thread in range(8) for number in range(10, 50)
        }
