"""Every -o option, by what the kernel then shows in the container, and every wrong value by what its user reads."""

import json

import pytest

from tests.lab.docker_host import Container, DockerHost, plugin_error
from tests.lab.roots import root_of

NICS = 2
LAN = ("--subnet=192.168.77.0/24", "--gateway=192.168.77.1", "--ip-range=192.168.77.64/26")
KNOWN = (
    "allow_parent_mac_change, allow_wireless_parent, announce, bclim, bcqueuelen, conflict_detection, dhcp, "
    "dhcp_readdress, dhcp_release, dhcp_vendor_class, host_access, host_address, identity, macvlan_mode, mtu, "
    "nopromisc, parent, source_macs, vlan_id"
)


def started(host: DockerHost, *options: str) -> Container:
    """Run a container on a network of its own, with these options."""
    host.create("lan", *LAN, *(f"--opt={option}" for option in options))
    return host.start("box")


def index_of_parent(container: Container, nic: str = "eth0") -> int:
    """Return the index, in the docker host, of the NIC below a container's link."""
    return int(container.links()[nic]["link_index"])


@pytest.mark.one_engine
@pytest.mark.parametrize(
    "names", [("parent", "macvlan_mode", "mtu"), ("host_iface", "mode", "com.docker.network.driver.mtu")]
)
def test_options_reach_the_kernel_under_both_names(
    docker_host: DockerHost, names: tuple[str, str, str]
) -> None:
    parent, mode, mtu = names
    # Bridge is the default, and vepa what the kernel does with a mode that it does not understand.
    box = started(docker_host, f"{parent}=eth2", f"{mode}=private", f"{mtu}=1400", "bcqueuelen=2000")
    assert index_of_parent(box) == docker_host.lan.host_links()["eth2"]["ifindex"]
    assert box.kind() == {"mode": "private", "bcqueuelen": 2000, "usedbcqueuelen": 2000}
    assert box.links()["eth0"]["mtu"] == 1400
    assert box.ping("192.168.77.2")
    too_long = box.attempt("ping", "-c", "1", "-w", "1", "-M", "do", "-s", "1400", "192.168.77.2")
    assert "message too long" in too_long.stderr.lower()


@pytest.mark.one_engine
def test_default_parent_is_the_host_interface(docker_host: DockerHost) -> None:
    box = started(docker_host)
    assert index_of_parent(box) == docker_host.lan.host_links()["eth1"]["ifindex"]
    assert box.kind()["mode"] == "bridge"
    assert box.links()["eth0"]["mtu"] == 1500


@pytest.mark.one_engine
@pytest.mark.plugin_arguments("--mtu=1300", "--mode=private")
def test_service_options_are_defaults_of_networks(docker_host: DockerHost) -> None:
    box = started(docker_host)
    assert box.links()["eth0"]["mtu"] == 1300
    assert box.kind()["mode"] == "private"


@pytest.mark.engines("28.5")
def test_broadcast_limit_reaches_the_kernel(docker_host: DockerHost) -> None:
    docker_host.create("lan", *LAN, "--opt=parent=eth1", "--opt=bclim=5")
    docker_host.create("other", "--subnet=10.88.0.0/24", "--opt=parent=eth1", "--opt=bclim=-1")
    ip = ("chroot", str(root_of("28.5")), "/sbin/ip")  # that of Debian 12 does not show the limit
    for network, limit in (("lan", 5), ("other", -1)):
        box = docker_host.start(f"box-{network}", network=network)
        (link,) = json.loads(box.run(*ip, "-json", "-details", "link", "show", "eth0"))
        assert link["linkinfo"]["info_data"]["bclim"] == limit


@pytest.mark.one_engine
def test_nopromisc_keeps_the_parent_out_of_promiscuous_mode(docker_host: DockerHost) -> None:
    box = started(docker_host, "parent=eth2", "mode=passthru", "nopromisc")
    assert box.kind()["nopromisc"] is True
    assert docker_host.lan.host_links()["eth2"]["promiscuity"] == 0
    box.remove()
    docker_host.engine.docker("network", "rm", "lan")
    box = started(docker_host, "parent=eth2", "mode=passthru", "nopromisc=false")
    assert "nopromisc" not in box.kind()
    assert docker_host.lan.host_links()["eth2"]["promiscuity"] == 1


@pytest.mark.one_engine
def test_source_macs_reach_the_kernel(docker_host: DockerHost) -> None:
    box = started(docker_host, "mode=source", "source_macs=02:00:00:00:00:0A,02:00:00:00:00:0b")
    assert box.kind()["mode"] == "source"
    assert set(box.kind()["macaddr_data"]) == {"02:00:00:00:00:0a", "02:00:00:00:00:0b"}


@pytest.mark.one_engine
def test_mac_in_passthru_needs_force_and_is_restored(docker_host: DockerHost) -> None:
    mac, chosen = docker_host.lan.host_links()["eth2"]["address"], "02:00:00:00:00:77"
    docker_host.create("lan", *LAN, "--opt=parent=eth2", "--opt=mode=passthru")
    assert plugin_error(docker_host.start_refusal(f"--mac-address={chosen}")) == (
        f"MAC address {chosen} would change that of parent eth2 in mode passthru: leave --mac-address out, or create the "
        "network with -o allow_parent_mac_change=true"
    )
    assert docker_host.lan.host_links()["eth2"]["address"] == mac
    docker_host.engine.docker("network", "rm", "lan")

    docker_host.create(
        "lan", *LAN, "--opt=parent=eth2", "--opt=mode=passthru", "--opt=allow_parent_mac_change=true"
    )
    box = docker_host.start("box", f"--mac-address={chosen}")
    assert box.mac() == chosen
    assert docker_host.lan.host_links()["eth2"]["address"] == chosen
    assert box.ping("192.168.77.2")
    box.remove()
    assert docker_host.lan.host_links()["eth2"]["address"] == mac


@pytest.mark.one_engine
def test_two_names_of_one_option_must_agree(docker_host: DockerHost) -> None:
    assert index_of_parent(started(docker_host, "parent=eth2", "host_iface=eth2")) > 0
    error = plugin_error(docker_host.refusal("--opt=mode=bridge", "--opt=macvlan_mode=vepa"))
    assert error in {
        "-o mode=bridge conflicts with -o macvlan_mode=vepa: mode and macvlan_mode are two names for one option; set only one of them",
        "-o macvlan_mode=vepa conflicts with -o mode=bridge: macvlan_mode and mode are two names for one option; set only one of them",
    }


WRONG = {  # more of them, with the whole texts, are in test_refusals
    "mode=bride": "requested macvlan mode 'bride' is not valid: did you mean bridge? use one of bridge, ",
    "macvlan_mode=Bridge": "requested macvlan mode 'Bridge' is not valid",
    "mtu=many": "-o mtu: ",
    "mtu=-1": "-o mtu: ",
    "mtu=67": "-o mtu: ",
    "com.docker.network.driver.mtu=1e3": "-o com.docker.network.driver.mtu: ",
    "mtu=1501": "mtu 1501 is greater than the MTU of parent eth1, 1500",
    "bcqueuelen=-1": "-o bcqueuelen: -1 is out of range: use a number from 0",
    "bcqueuelen=4294967296": "-o bcqueuelen: ",
    "bclim=many": "-o bclim: 'many' is not a whole number: use a number from -1",
    "nopromisc=perhaps": "-o nopromisc: 'perhaps' is neither true nor false",
    "source_macs=": "no MAC address is set: name one or more",
    "source_macs=01:00:5e:00:00:01": "multicast",
    "vlan_id=0": "vlan id must be between 1-4094, received: 0",
    "vlan_id=4095": "vlan id must be between 1-4094, received: 4095",
    "parent=eth9": "parent interface eth9 was not found on the Docker host",
    "parent=eth1.0": "vlan id must be between 1-4094, received: 0",
    "parent=": "-o parent: ",
    "parent=a-name-of-16-byte": "-o parent: ",
    "parent=../eth1": "-o parent: ",
    "Parent=eth1": f"unknown option -o Parent: did you mean parent? use one of {KNOWN}",
    "ipvlan_mode=l2": f"unknown option -o ipvlan_mode: did you mean macvlan_mode? use one of {KNOWN}",
}


@pytest.mark.engines("20.10", "28.5")
def test_wrong_option_is_refused_and_leaves_nothing(docker_host: DockerHost) -> None:
    wrong = []
    for option, expected in WRONG.items():
        error = docker_host.refusal(*LAN, f"--opt={option}")
        if expected not in error:
            wrong.append(f"{option}: expected {expected!r}, read {error!r}")
    assert wrong == []
    # Nor is a subnet lost: it can be had by the next network.
    docker_host.create("lan", *LAN, "--opt=parent=eth1")


@pytest.mark.one_engine
def test_options_of_the_engine_are_ignored(docker_host: DockerHost) -> None:
    box = started(docker_host, "com.docker.network.container_iface_prefix=net", "com.docker.whatever=7")
    assert box.ping("192.168.77.1")
