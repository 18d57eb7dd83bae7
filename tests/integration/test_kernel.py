"""The real kernel keeps the contract that the fake is held to, and what only a real one can show."""

import errno
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from attrs import evolve

from macvlan_twisted.errors import LinkError
from tests.contracts.host_network_contract import HostNetworkContract
from tests.contracts.kernel_contract import PLAIN, KernelContract
from tests.integration.conftest import need
from tests.integration.namespaced import NamespacedKernel, open_files
from tests.lab.lan import Lan
from tests.lab.plugin import CHECKOUT
from tests.lab.requirements import missing_for_lan


class RealHost:
    """A docker host with two NICs; links are moved to the neighbour, which stands for a container."""

    def __init__(self, lan: Lan) -> None:
        """Start with the host's links as they are."""
        self.lan = lan
        self.namespaced = NamespacedKernel(lan)
        self.kernel = self.namespaced.kernel

    def move_away(self, name: str, *, up: bool = False) -> None:
        """Move a link away."""
        self.lan.run_in("host", "ip", "link", "set", name, "netns", self.lan.namespace("neighbour"))
        if up:
            self.lan.run_in("neighbour", "ip", "link", "set", name, "up")

    def move_back(self, name: str) -> None:
        """Move it back."""
        self.lan.run_in("neighbour", "ip", "link", "set", name, "down")
        self.lan.run_in("neighbour", "ip", "link", "set", name, "netns", self.lan.namespace("host"))

    def in_threads(self, number: int, work: Callable[[int], None]) -> None:
        """Call `work` in threads of a pool, which have ended on return."""
        with ThreadPoolExecutor(number) as pool:
            list(pool.map(work, range(number)))

    def setting(self, name: str, key: str) -> str:
        """Read a sysctl of a link."""
        family, setting = key.split("/")
        return self.lan.run_in("host", "cat", f"/proc/sys/net/{family}/conf/{name}/{setting}").strip()

    def clear(self) -> None:
        """Remove all macvlan links of all tests."""
        for place in ("host", "neighbour"):
            for group in range(PLAIN.group, PLAIN.group + 3):
                self.lan.attempt_in(place, "ip", "link", "delete", "group", str(group))


@pytest.fixture(scope="module")
def two_nics() -> Iterator[Lan]:
    """Give a LAN whose host has two NICs to all tests of the module."""
    need(missing_for_lan())
    with Lan(nics=2) as lan:
        yield lan


@pytest.fixture
def host(two_nics: Lan) -> Iterator[RealHost]:
    """Give the real kernel, without links of an earlier test."""
    made = RealHost(two_nics)
    try:
        yield made
    finally:
        made.namespaced.close()
        made.clear()


class TestNetlinkKernel(KernelContract):
    """All of the contract."""


class TestNetlinkHostNetwork(HostNetworkContract):
    """All of the contract."""


def test_sockets_of_ended_threads_are_closed(host: RealHost) -> None:
    host.kernel.links()
    gc.collect()
    before = open_files()
    during: list[int] = []

    def work(number: int) -> None:
        for _ in range(5):
            host.kernel.add_macvlan(evolve(PLAIN, name=f"mvt{number}"))
            host.kernel.delete(f"mvt{number}")
        during.append(open_files())

    for _ in range(3):
        host.in_threads(8, work)
    gc.collect()
    assert max(during) > before
    assert open_files() == before


def test_links_that_come_and_go_hide_no_other(host: RealHost) -> None:
    staying = {f"stays{number}" for number in range(100)}
    for name in staying:
        host.kernel.add_macvlan(evolve(PLAIN, name=name))
    over = threading.Event()

    def work(number: int) -> None:
        try:
            for _ in range(20 if number == 0 else 0):
                assert staying <= {link.name for link in host.kernel.links()}
                assert staying <= {link.name for link in host.kernel.members_of_group(PLAIN.group)}
            while number and not over.is_set():
                host.kernel.add_macvlan(evolve(PLAIN, name=f"mvt{number}", group=PLAIN.group + 1))
                host.kernel.delete(f"mvt{number}")
        finally:
            over.set()

    host.in_threads(4, work)


def test_veth_peer_is_not_taken_for_the_lower_link(host: RealHost) -> None:
    """Its index is one of another namespace, where it means something else."""
    nic = host.kernel.find("eth1")
    assert nic is not None
    assert (nic.kind, nic.lower_index) == ("veth", 0)


def test_bridge_port_is_recognized(host: RealHost) -> None:
    ip = ("ip", "link")
    host.lan.run_in("host", *ip, "add", "br7", "type", "bridge")
    try:
        host.lan.run_in("host", *ip, "set", "eth2", "master", "br7")
        port = host.kernel.find("eth2")
        assert port is not None
        assert port.bridge == "br7"
        with pytest.raises(LinkError, match="mvtone on eth2") as caught:
            host.kernel.add_macvlan(evolve(PLAIN, parent="eth2"))
        assert caught.value.errno == errno.EBUSY
        assert host.kernel.find("mvtone") is None
    finally:
        host.lan.run_in("host", *ip, "delete", "br7")


def test_down_parent_accepts_links(host: RealHost) -> None:
    """Its containers work as soon as it is up."""
    host.lan.run_in("host", "ip", "link", "set", "eth2", "down")
    try:
        host.kernel.add_macvlan(evolve(PLAIN, parent="eth2"), prove_mac_free=True)
        assert host.kernel.read_macvlan("mvtone") is not None
    finally:
        host.lan.run_in("host", "ip", "link", "set", "eth2", "up")


def test_link_goes_with_its_parent(host: RealHost) -> None:
    host.lan.run_in("host", "ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
    host.kernel.add_macvlan(evolve(PLAIN, parent="v0"))
    assert host.kernel.delete("v0")
    assert host.kernel.find("mvtone") is None


def test_parallel_removals_succeed_once_each(host: RealHost) -> None:
    for number in range(100):
        host.kernel.add_macvlan(evolve(PLAIN, name=f"mvt{number}"))

    def work(thread: int) -> None:
        for number in range(100):  # all threads want the same links: each goes once, and nobody fails
            gone.append(host.kernel.delete(f"mvt{(number + 12 * thread) % 100}"))

    gone: list[bool] = []
    host.in_threads(8, work)
    assert (gone.count(True), gone.count(False)) == (100, 700)
    assert host.kernel.members_of_group(PLAIN.group) == []


WITHOUT_CAPABILITY = """
from macvlan_twisted.errors import LinkError
from macvlan_twisted.netlink.kernel import MacvlanLink
from macvlan_twisted.netlink.rtnetlink import NetlinkKernel
kernel = NetlinkKernel()
assert kernel.find("eth1") is not None
try:
    kernel.add_macvlan(MacvlanLink("mvtone", "eth1", "bridge"))
except LinkError as failure:
    print(failure)
"""


def test_missing_net_admin_is_named(host: RealHost) -> None:
    drop = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
    python = ("env", f"PYTHONPATH={CHECKOUT}", sys.executable, "-c", WITHOUT_CAPABILITY)
    said = host.lan.run_in("host", *drop, *python)
    assert "mvtone on eth1: permission denied: the plugin needs CAP_NET_ADMIN" in said
