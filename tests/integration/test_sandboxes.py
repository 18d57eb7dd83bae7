"""The real sandboxes keep the contract that those in memory are held to, and what only real ones can show."""

import os
import sys
import threading
from contextlib import suppress
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from attrs import evolve

from macvlan_twisted.errors import LinkError
from macvlan_twisted.netlink.kernel import Sandboxes
from macvlan_twisted.netlink.netns import NamespaceSandboxes, sandbox_of_process
from tests.contracts.sandbox_contract import ELSEWHERE, MAC, MOVE, NEW, OLD, ROUTER, SandboxContract
from tests.integration.namespaced import open_files
from tests.lab.commands import run, wait_until
from tests.lab.lan import Lan
from tests.lab.plugin import CHECKOUT


class RealSandbox:
    """The LAN's neighbour stands for a container: it has a macvlan link, named and addressed as by an engine."""

    def __init__(self, lan: Lan) -> None:
        """Make the link in the host, and move it as the engine does."""
        self.lan = lan
        self.sandboxes: Sandboxes = NamespaceSandboxes()
        self.path = lan.namespace_path("neighbour")
        lan.run_in("neighbour", "ip", "address", "flush", "dev", "eth1")
        where = ("netns", lan.namespace("neighbour"))
        kind = ("type", "macvlan", "mode", "bridge")
        lan.run_in("host", "ip", "link", "add", "mvt", "link", "eth1", "address", MAC, *where, *kind)
        self.ip("link set mvt name eth0 up")
        self.ip(f"address add {OLD} broadcast + dev eth0")
        self.ip(f"route add default via {ROUTER}")

    def ip(self, words: str) -> str:
        """Run `ip` in the sandbox."""
        return self.lan.run_in("neighbour", "ip", "-4", *words.split())

    def promote(self, *, secondaries: bool) -> None:
        """Set promote_secondaries: whether an address survives the primary one of its subnet."""
        for name in ("all", "eth0"):
            setting = f"net.ipv4.conf.{name}.promote_secondaries={int(secondaries)}"
            self.lan.run_in("neighbour", "sysctl", "-q", "-w", setting)

    def addresses(self) -> set[str]:
        """Return the link's IPv4 addresses."""
        output = self.lan.links("neighbour")["eth0"]["addr_info"]
        return {f"{each['local']}/{each['prefixlen']}" for each in output if each["family"] == "inet"}

    def routers(self) -> set[str]:
        """Return the gateways of default routes."""
        return {each["gateway"] for each in self.lan.routes("neighbour", "default", families=("-4",))}

    def routes(self) -> set[str]:
        """Return the routes that the kernel did not make."""
        output = self.lan.routes("neighbour", "dev", "eth0", families=("-4",))
        return {each["dst"] for each in output if each["protocol"] != "kernel"}


@pytest.fixture
def sandbox(lan: Lan) -> RealSandbox:
    """Give a sandbox on a LAN."""
    return RealSandbox(lan)


class TestNamespaceSandboxes(SandboxContract):
    """All of the contract."""


@pytest.mark.parametrize("promoted", [True, False])
def test_new_address_survives_promote_secondaries_either_way(sandbox: RealSandbox, promoted: bool) -> None:
    """Without promote_secondaries the kernel takes the new address away with the old one, and the routes as well."""
    sandbox.promote(secondaries=promoted)
    sandbox.ip("route add 10.8.0.0/16 via 192.168.77.33 metric 7")
    assert sandbox.sandboxes.move(sandbox.path, evolve(MOVE, router=ip_address(ROUTER))) == ()
    assert (sandbox.addresses(), sandbox.routers(), sandbox.routes()) == (
        {NEW},
        {ROUTER},
        {"default", "10.8.0.0/16"},
    )
    assert sandbox.lan.ping("neighbour", ROUTER)


def test_foreign_addresses_and_routes_stay(sandbox: RealSandbox) -> None:
    """Routes that cannot stay are returned. What was added within the container is not the lease's."""
    sandbox.ip("address add 172.16.0.1/24 dev eth0")
    sandbox.ip("route add 10.7.0.0/16 via 172.16.0.9")
    sandbox.ip("route add 10.8.0.0/16 via 192.168.77.33 src 192.168.77.100")
    assert sandbox.sandboxes.move(sandbox.path, ELSEWHERE) == ("10.8.0.0/16 via 192.168.77.33",)
    assert sandbox.addresses() == {"10.9.0.5/16", "172.16.0.1/24"}
    assert sandbox.routes() == {"default", "10.7.0.0/16"}


def test_needed_routes_are_added_once(sandbox: RealSandbox) -> None:
    """To the host, whose address is not in the new subnet; what is there already is not made twice."""
    needed = (
        (ip_network("192.168.77.95/32"), None),
        (ip_network("192.168.77.10/32"), ip_address("192.168.77.95")),
        (ip_network("fd77::10/128"), ip_address("fd77::95")),
    )
    for _ in range(2):
        assert sandbox.sandboxes.move(sandbox.path, evolve(ELSEWHERE, routes=needed)) == ()
    assert sandbox.routes() == {"default", "192.168.77.95", "192.168.77.10"}


def test_failed_move_is_rolled_back(sandbox: RealSandbox) -> None:
    """The new address is there already when its router turns out to be out of reach."""
    sandbox.promote(secondaries=False)
    with pytest.raises(LinkError, match=r"route default via 10\.10\.0\.1"):
        sandbox.sandboxes.move(sandbox.path, evolve(ELSEWHERE, router=ip_address("10.10.0.1")))
    assert (sandbox.addresses(), sandbox.routers()) == ({OLD}, {ROUTER})
    assert sandbox.lan.ping("neighbour", ROUTER)


def test_host_network_is_never_taken_for_a_sandbox() -> None:
    """Whatever path leads to it."""
    with pytest.raises(LinkError, match="the host's own network"):
        NamespaceSandboxes().move(sandbox_of_process(os.getpid()), MOVE)


def test_path_that_is_no_namespace_is_refused_at_once(
    sandbox: RealSandbox, tmp_path: "os.PathLike[str]"
) -> None:
    """A file, as it is seen where the mounts of the engine are not; a pipe; a link to a sandbox."""
    file, pipe, link = (os.path.join(tmp_path, name) for name in ("file", "pipe", "link"))
    open(file, "w").close()
    os.mkfifo(pipe)
    os.symlink(sandbox.path, link)
    for path in (file, pipe, link, "/dev/null"):
        assert not sandbox.sandboxes.is_there(path)
        with pytest.raises(LinkError):
            sandbox.sandboxes.move(path, MOVE)


def test_visits_leave_no_file_and_no_thread(sandbox: RealSandbox) -> None:
    """Each visit has a thread of its own, which ends in the sandbox."""
    own = os.stat("/proc/self/ns/net").st_ino
    sandbox.sandboxes.move(sandbox.path, MOVE)
    files, threads = open_files(), threading.active_count()
    for number in range(5):
        sandbox.sandboxes.move(
            sandbox.path, evolve(MOVE, arriving=ip_interface(f"192.168.77.{151 + number}/24"))
        )
    assert (open_files(), threading.active_count()) == (files, threads)
    # A thread that was waited for may be in the kernel's hands for a moment more.
    wait_until(lambda: namespaces_of_threads() == {own}, 5, "the end of the threads in the sandbox")


def namespaces_of_threads() -> set[int]:
    """Return the network namespaces in which this process has threads."""
    found = set()
    for thread in os.listdir("/proc/self/task"):
        with suppress(FileNotFoundError):
            found.add(os.stat(f"/proc/self/task/{thread}/ns/net").st_ino)
    return found


def with_capabilities(names: str, program: str) -> str:
    """Run a program as root with few capabilities, and return what it prints.

    :param names: those beside CAP_DAC_READ_SEARCH, which root needs to read a checkout in a user's home.
    """
    names += ",+dac_read_search"
    few = ("setpriv", "--bounding-set", f"-all,{names}", "--inh-caps", f"-all,{names}")
    start = "from macvlan_twisted.netlink.netns import NamespaceSandboxes\nsandboxes = NamespaceSandboxes()\n"
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    return run(*few, sys.executable, "-c", start + program, env=environment)


def test_missing_sys_admin_is_named() -> None:
    """The unit in systemd/ gives the service NET_ADMIN and NET_RAW."""
    assert "CAP_SYS_ADMIN" in with_capabilities("+net_admin,+net_raw", "print(sandboxes.lacking())")


def test_documented_capabilities_suffice(sandbox: RealSandbox) -> None:
    """What is added to the unit by hand suffices."""
    program = f"""
from tests.contracts.sandbox_contract import MOVE
print([sandboxes.lacking(), sandboxes.move({sandbox.path!r}, MOVE)])
"""
    assert with_capabilities("+net_admin,+net_raw,+sys_admin", program) == "['', ()]\n"
    assert sandbox.addresses() == {NEW}
