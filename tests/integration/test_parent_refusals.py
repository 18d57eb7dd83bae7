"""Links that cannot be a parent: what a user reads on the terminal, and that nothing is left of the attempt."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab.commands import run
from tests.lab.docker_host import DockerHost, plugin_error

NICS = 2
LAN = ("--subnet=192.168.77.0/24", "--gateway=192.168.77.1", "--ip-range=192.168.77.64/26")


def refusal(host: DockerHost, *options: str) -> str:
    """Try to create a network with these options, and return the plugin's error."""
    return plugin_error(host.refusal(*LAN, *(f"--opt={option}" for option in options)))


@contextmanager
def link(host: DockerHost, name: str, *words: str) -> Iterator[None]:
    """Add a link to the docker host as another program would; `words` follow its name."""
    host.lan.run_in(host.place, "ip", "link", "add", "name", name, *words)
    try:
        yield
    finally:
        host.lan.run_in(host.place, "ip", "link", "delete", name)


@contextmanager
def wireless(host: DockerHost, nic: str) -> Iterator[None]:
    """Add a NIC that is a Wi-Fi interface to the plugin: the kernel shows such a one's radio as phy80211 in sysfs.

    The plugin has the machine's sysfs, which does not show the NICs of the lab. Of a veth, it does not ask sysfs; of a VXLAN
    it does, and the module for those makes no link by itself.
    """
    window = ("nsenter", f"--mount={host.engine.window}", "--")
    run(*window, "mount", "-t", "tmpfs", "tmpfs", "/sys/class/net")
    try:
        run(*window, "mkdir", "-p", f"/sys/class/net/{nic}/phy80211")
        with link(host, nic, "type", "vxlan", "id", "7", "dstport", "4789"):
            host.lan.run_in(host.place, "ip", "link", "set", nic, "up")
            yield
    finally:
        run(*window, "umount", "/sys/class/net")


def kernel_has_vlans(host: DockerHost) -> bool:
    """Try to add a VLAN to eth1; the kernel loads its module if there is one."""
    words = ("link", "eth1", "type", "vlan", "id", "21")
    added = host.lan.attempt_in(host.place, "ip", "link", "add", "name", "probe0", *words)
    if added.status == 0:
        host.lan.run_in(host.place, "ip", "link", "delete", "probe0")
    return added.status == 0


@pytest.mark.one_engine
@pytest.mark.parametrize("options", [("parent=eth1.20",), ("parent=eth1", "vlan_id=20")], ids=" ".join)
def test_vlan_parent_needs_the_kernels_module(docker_host: DockerHost, options: tuple[str, ...]) -> None:
    if kernel_has_vlans(docker_host):
        docker_host.create("lan", *LAN, *(f"--opt={option}" for option in options))
        assert docker_host.links()["eth1.20"]["linkinfo"]["info_data"]["id"] == 20
    else:
        assert refusal(docker_host, *options) == (
            "VLAN 20 of eth1 cannot be created, because the kernel's module for VLANs is not loaded: "
            "run modprobe 8021q on the host"
        )


@pytest.mark.one_engine
def test_vlan_whose_name_another_link_has_is_refused(docker_host: DockerHost) -> None:
    with link(docker_host, "eth1.20", "type", "veth"):
        assert refusal(docker_host, "parent=eth1", "vlan_id=20") == (
            "link eth1.20 exists and is not VLAN 20 of eth1: rename or remove it, or use another VLAN"
        )


@pytest.mark.one_engine
def test_wireless_parent_is_refused_unless_allowed(docker_host: DockerHost) -> None:
    with wireless(docker_host, "wlan0"):
        assert refusal(docker_host, "parent=wlan0") == (
            "parent wlan0 is a Wi-Fi interface, and access points drop frames from containers' MAC addresses: use a wired NIC, "
            "or -o allow_wireless_parent=true if your access point accepts them (4-address mode)"
        )
        assert refusal(docker_host, "parent=eth9").endswith(
            ": did you mean eth1? use one of eth1, eth2, or a VLAN on one of them, like eth1.10"
        )
        docker_host.create("lan", *LAN, "--opt=parent=wlan0", "--opt=allow_wireless_parent=true")
        box = docker_host.start("box")
        assert box.links()["eth0"]["link_index"] == docker_host.links()["wlan0"]["ifindex"]
        box.remove()
        docker_host.engine.docker("network", "rm", "lan")


@pytest.mark.one_engine
def test_bridge_port_is_refused_as_parent(docker_host: DockerHost) -> None:
    with link(docker_host, "br7", "type", "bridge"):
        docker_host.lan.run_in("host", "ip", "link", "set", "eth2", "master", "br7")
        assert refusal(docker_host, "parent=eth2") == (
            "parent eth2 is a port of bridge br7, which takes its frames: use -o parent=br7"
        )
        docker_host.lan.run_in("host", "ip", "link", "set", "br7", "up")
        docker_host.create("lan", *LAN, "--opt=parent=br7")
        box = docker_host.start("box")
        assert box.links()["eth0"]["link_index"] == docker_host.links()["br7"]["ifindex"]
        assert box.ping("192.168.77.2")
        box.remove()
        docker_host.engine.docker("network", "rm", "lan")


@pytest.mark.one_engine
def test_passthru_beside_a_foreign_macvlan_is_refused(docker_host: DockerHost) -> None:
    with link(docker_host, "foreign", "link", "eth2", "type", "macvlan", "mode", "bridge"):
        assert refusal(docker_host, "parent=eth2", "mode=passthru") == (
            "parent eth2 has macvlan links of another program and cannot be used in mode passthru: remove those links, "
            "or choose another mode or parent"
        )
        assert "foreign" in docker_host.links()


@pytest.mark.one_engine
def test_parent_in_foreign_passthru_is_refused(docker_host: DockerHost) -> None:
    with link(docker_host, "foreign", "link", "eth2", "type", "macvlan", "mode", "passthru"):
        assert refusal(docker_host, "parent=eth2") == (
            "parent eth2 does not accept macvlan links: another program uses it in mode passthru, or it is not an Ethernet "
            "link; choose another parent, or stop the other program"
        )
        assert "foreign" in docker_host.links()
