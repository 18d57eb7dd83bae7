"""
What a user reads on the terminal when the plugin refuses: what is wrong, the value and the remedy, in this order.

Refusals that need a LAN, a link or a server of their own are beside what they are about: ``test_parent_refusals``, ``test_sharing``,
``test_late_parents``, ``test_options``, ``test_macs``, ``test_conflicts``, ``test_addresses``, ``test_dhcp``,
``test_host_access_refusals``, ``test_host_access_dhcp``, ``test_least_privilege``.
"""

from __future__ import annotations

import re

import pytest

from tests.lab.docker_host import DockerHost, plugin_error

NICS = 2
OURS = "--ipam-driver=macvlan-twisted"
SUBNET = ("--subnet=192.168.77.0/24", "--gateway=192.168.77.1")
NEIGHBOUR = "192.168.77.2"
NULL = "--ipam-driver=null"
ACCESS = "--opt=host_access=true"

NETWORKS: dict[tuple[str, ...], tuple[str, ...]] = {
    # -o: keys and values
    (*SUBNET, "--opt=parrent=eth1"): (
        "unknown option -o parrent: did you mean parent? use one of ",
        "host_access",
    ),
    (*SUBNET, "--opt=parent=eth9"): (
        "parent interface eth9 was not found on the Docker host: did you mean eth1? use one of eth1, eth2, or a VLAN on one of them, ",
    ),
    (*SUBNET, "--opt=parent=eth9.20"): (
        "parent interface eth9 was not found on the Docker host: did you mean eth1? ",
    ),
    (*SUBNET, "--opt=parent=lo"): (
        "-o parent: loopback interface is not a valid macvlan parent link: name a NIC",
    ),
    (*SUBNET, "--opt=parent=eth1.5000"): (
        "-o parent=eth1.5000: vlan id must be between 1-4094, received: 5000: use",
    ),
    (*SUBNET, "--opt=vlan_id=ten"): (
        "-o vlan_id: unable to parse a valid vlan id from: ten",
        "use a number from 1",
    ),
    ("--internal", *SUBNET, "--opt=vlan_id=20"): (
        "-o vlan_id=20 needs a parent: name a NIC with -o parent=",
    ),
    (*SUBNET, "--opt=mode=brigde"): (
        "-o mode: requested macvlan mode 'brigde' is not valid: did you mean bridge? use",
    ),
    (*SUBNET, "--opt=mtu=many"): ("-o mtu: 'many' is not a whole number: use an MTU in bytes from 68",),
    (*SUBNET, "--opt=mtu=9000"): ("mtu 9000 is greater than the MTU of parent eth1, 1500: use at most 1500",),
    (*SUBNET, "--opt=announce=maybe"): ("-o announce: 'maybe' is neither true nor false: use true or false",),
    (*SUBNET, "--opt=conflict_detection=strickt"): (
        "-o conflict_detection: 'strickt' is not a conflict detection mode: did you mean strict? use one of on, off, strict",
    ),
    (*SUBNET, "--opt=identity=adress"): (
        "-o identity: 'adress' is not a source of identity: did you mean address? use one of name, address, random",
    ),
    (*SUBNET, "--opt=vlan_id=4095"): (
        "-o vlan_id: vlan id must be between 1-4094, received: 4095: use a number in that range",
    ),
    (*SUBNET, "--opt=parent=a/b"): (
        "-o parent: 'a/b' is not an interface name: use 1 to 15 characters without blanks, '/' or ':', like eth1",
    ),
    (*SUBNET, "--opt=mtu=67"): ("-o mtu: 67 is out of range: use an MTU in bytes from 68 to ",),
    (*SUBNET, "--opt=bcqueuelen=-1"): ("-o bcqueuelen: -1 is out of range: use a number from 0 to ",),
    (*SUBNET, "--opt=bclim=many"): ("-o bclim: 'many' is not a whole number: use a number from -1 to ",),
    (*SUBNET, "--opt=dhcp_vendor_class=a\tb"): (
        "-o dhcp_vendor_class: 'a\\tb' is not a vendor class: use up to 255 printable bytes",
    ),
    (*SUBNET, ACCESS, "--opt=host_address=router"): (
        "-o host_address: 'router' is not an IP address: write it like 192.168.1.1 or fd00::1",
    ),
    (*SUBNET, ACCESS, "--opt=host_address=192.168.77.8,192.168.77.9"): (
        "-o host_address: '192.168.77.8,192.168.77.9' has more than one address of the same family: use one, or an IPv4 and an IPv6 address",
    ),
    (*SUBNET, "--opt=source_macs="): (
        "-o source_macs: no MAC address is set: name one or more, separated by commas",
    ),
    (*SUBNET, "--opt=source_macs=00:00:00:00:00:00"): (
        "-o source_macs: '00:00:00:00:00:00' is all zeros and not a MAC address: write it like 02:42:",
    ),
    (*SUBNET, "--opt=source_macs=house"): (
        "-o source_macs: 'house' is not a MAC address: write it like 02:42:",
    ),
    # -o: what contradicts what
    (*SUBNET, "--opt=mode=bridge", "--opt=macvlan_mode=vepa"): (
        "mode and macvlan_mode are two names for one option; set only|macvlan_mode and mode are two names for one option; set only",
    ),
    (*SUBNET, "--opt=nopromisc"): ("-o nopromisc needs mode passthru, but the mode is bridge: leave it out",),
    (*SUBNET, "--opt=allow_parent_mac_change"): (
        "-o allow_parent_mac_change needs mode passthru, but the mode is bridge: ",
    ),
    (*SUBNET, "--opt=source_macs=02:00:00:00:00:07"): (
        "-o source_macs needs mode source, but the mode is bridge: add -o",
    ),
    (*SUBNET, "--opt=mode=source"): (
        "mode source admits no sender without -o source_macs: add -o source_macs=MAC,MAC",
    ),
    (*SUBNET, "--opt=identity=name"): ("-o identity=name needs the plugin's IPAM", "use --ipam-driver"),
    (*SUBNET, "--opt=dhcp=true"): (
        "-o dhcp=true cannot be combined with Docker's own IPAM: add --ipam-driver null",
    ),
    (*SUBNET, "--opt=dhcp_readdress=true"): ("-o dhcp_readdress=true needs addresses leased by DHCP: add ",),
    (*SUBNET, "--opt=mode=private", ACCESS): (
        "-o host_access=true needs mode bridge, but the mode is private: use -o",
    ),
    (*SUBNET, "--opt=host_address=192.168.77.9"): (
        "-o host_address needs host access: add -o host_access=true",
    ),
    (*SUBNET, ACCESS): (
        "host access needs an address for the host in 192.168.77.0/24",
        "reserve one with --aux-address host=",
    ),
    (NULL, ACCESS): ("host access needs an address for the host, but this network has no IPAM: specify one",),
    (*SUBNET, ACCESS, "--opt=host_address=fd00::9"): (
        "-o host_address=fd00::9: this network has no IPv6 subnet; add one",
    ),
    (*SUBNET, ACCESS, "--opt=host_address=192.168.77.10"): (
        "host address 192.168.77.10 is already assigned to the host on eth1: ",
    ),
    (*SUBNET, ACCESS, "--opt=host_address=192.168.77.1"): (
        "host address 192.168.77.1 is the address of the LAN's router: ",
    ),
    (*SUBNET, ACCESS, f"--opt=host_address={NEIGHBOUR}"): (
        f"host address {NEIGHBOUR} is in use on eth1 by MAC ",
        "which answers for it: ",
    ),
    (*SUBNET, ACCESS, "--opt=host_address=192.168.77.66"): (
        "host address 192.168.77.66 is in use by ",
        ": use another one, or stop that container",
    ),
    (*SUBNET, "--opt=mode=passthru"): (
        "cannot use mode passthru, macvlan network lan is already using parent interface eth1",
    ),
    # --ipam-opt
    (OURS, *SUBNET, "--ipam-opt=parnet=eth1"): (
        "unknown option --ipam-opt parnet: did you mean parent? use one of ",
    ),
    (OURS, *SUBNET, "--ipam-opt=parent=a/b"): (
        "--ipam-opt parent: 'a/b' is not an interface name: use 1 to 15 characters",
    ),
    (OURS, "--ipam-opt=parent=eth2"): (
        "no IPv4 subnet is known for parent eth2, only for the host interface eth1: specify --subnet",
    ),
    (OURS, *SUBNET, "--ipam-opt=parent=eth2", "--opt=parent=eth1"): (
        "--ipam-opt parent=eth2 is not the network's parent eth1",
        "use the same parent in -o parent= and --ipam-opt parent=",
    ),
    (OURS, *SUBNET, "--opt=conflict_detection=off"): (
        "-o conflict_detection=off alone has no effect, because the plugin's IPAM manages the addresses",
        "add --ipam-opt conflict_detection=off as well",
    ),
    (OURS, "--ipam-opt=dhcp=true", "--ip-range=192.168.77.64/28", *SUBNET): (
        "--ip-range 192.168.77.64/28 has no effect with --ipam-opt dhcp=true",
        "leave one of them out",
    ),
    (OURS, "--ipam-opt=dhcp=true", *SUBNET, "--ipv6", "--subnet=fd77::/64"): (
        "--ipam-opt dhcp=true leases IPv4 addresses only: leave --ipv6 out, or create the network without dhcp",
    ),
    (OURS, "--ipam-opt=dhcp=true"): (
        "no DHCP server on eth1 offered ",
        "check that eth1 is on the right LAN",
    ),
    (OURS, "--subnet=169.254.9.0/24"): (
        "subnet 169.254.9.0/24 is link-local and works on internal networks only: add --internal",
    ),
    (OURS, "--subnet=224.0.0.0/24"): (
        "subnet 224.0.0.0/24 contains 224.0.0.0/4 (multicast), ",
        "use the LAN's own --subnet",
    ),
    (OURS, "--subnet=192.168.77.128/25"): (
        "subnet 192.168.77.128/25 overlaps 192.168.77.0/24, which is in use on parent eth1: specify --subnet 192.168.77.0/24",
    ),
    (OURS, "--subnet=192.168.77.0/24", "--gateway=192.168.77.255"): (
        "gateway address 192.168.77.255 is not a usable address of 192.168.77.0/24: use one from 192.168.77.1 to ",
    ),
    (OURS, *SUBNET, "--aux-address=me=192.168.77.66"): (
        "auxiliary address 192.168.77.66 of 192.168.77.0/24 is in use by a container: ",
    ),
    (OURS, *SUBNET, "--aux-address=a=192.168.77.99", "--aux-address=b=192.168.77.99"): (
        "auxiliary address 192.168.77.99 of 192.168.77.0/24 is in use by a container or an --aux-address: use another one",
    ),
}
"""By the words of ``docker network create``: how the plugin's text begins, and what it has, too."""

CONTAINERS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("--ip=192.168.77.66",): (
        "endpoint address 192.168.77.66 of 192.168.77.0/24 is in use by a container: use another one",
    ),
    ("--ip=192.168.77.1",): (
        "address 192.168.77.1 of 192.168.77.0/24 is reserved as a network's gateway",
        "use another",
    ),
    (f"--ip={NEIGHBOUR}",): (  # it answers, or has answered for the host address above
        f"address {NEIGHBOUR} is in use on eth1 by MAC ",
        "for it: use another --ip|a moment ago: use another --ip",
    ),
    ("--mac-address=01:00:5e:00:00:01",): (
        "'01:00:5e:00:00:01' is a multicast MAC address: make its first byte even",
    ),
    ("--mac-address=00:00:00:00:00:00",): (
        "'00:00:00:00:00:00' is all zeros and not a MAC address: write it like 02:42:",
    ),
    ("--ip=192.168.77.255",): (
        "endpoint address 192.168.77.255 is not a usable address of 192.168.77.0/24: use one from 192.168.77.1 to ",
    ),
    ("--ip=192.168.77.10",): (
        "address 192.168.77.10 is in use on eth1 by MAC ",
        ", which is the host itself: use another --ip",
    ),
    ("--mac-address=02:00:00:00:00:77",): (
        "MAC address 02:00:00:00:00:77 is in use on parent eth1 by ",
        "of network lan: use another --mac-address",
    ),
    (): (
        "pool 192.168.77.0/24 (range 192.168.77.64/30) is exhausted: 4 of 4 addresses are allocated; remove containers, or create "
        "the network again with a larger --ip-range",
    ),
}
"""By the words of ``docker run``, on a network that has four addresses and one container."""

INFO = re.compile(r"\[macvlan_twisted[^]]*#(?:info|warn|error)\] (.*)")


def misses(text: str, expected: tuple[str, ...]) -> bool:
    begin, *more = expected
    at_start = any(each in text for each in begin.split("|")) if "|" in begin else text.startswith(begin)
    return not at_start or not all(any(each in text for each in words.split("|")) for words in more)


@pytest.mark.one_engine
@pytest.mark.plugin_arguments("--dhcp-timeout", "1")
def test_terminal_shows_error_value_and_remedy(docker_host: DockerHost) -> None:
    docker_host.create("lan", OURS, *SUBNET, "--ip-range=192.168.77.64/30", "--opt=parent=eth1")
    docker_host.start("box", "--ip=192.168.77.66", "--mac-address=02:00:00:00:00:77")
    wrong = []
    for words, expected in NETWORKS.items():
        text = plugin_error(docker_host.refusal(*words))
        if misses(text, expected):
            wrong.append(f"{' '.join(words)}: {text}")
    for words, expected in CONTAINERS.items():
        if not words:
            for name in ("one", "two", "three"):
                docker_host.start(name)
        text = plugin_error(docker_host.start_refusal(*words))
        if misses(text, expected):
            wrong.append(f"docker run {' '.join(words)}: {text}")
    assert wrong == [], "\n".join(wrong)


@pytest.mark.one_engine
def test_an_ordinary_life_is_four_lines_of_the_log(docker_host: DockerHost) -> None:
    """One each for the network's creation and removal, and for the container's start and stop."""
    plugin = docker_host.plugin
    docker_host.create("lan", OURS, *SUBNET, "--ip-range=192.168.77.64/28", "--opt=parent=eth1")
    box = docker_host.start("box", "--ip=192.168.77.66")
    mac = box.mac()
    box.remove()
    docker_host.engine.docker("network", "rm", "lan")
    _, _, log = plugin.log().partition("listening on")
    lines = [found[1] for line in log.splitlines() if (found := INFO.search(line))]
    assert len(lines) == 4, lines
    created, started, stopped, removed = lines
    assert re.fullmatch(
        r"network \w+: created on parent eth1, mode bridge, subnet 192\.168\.77\.0/24", created
    )
    assert "created on parent eth1, address 192.168.77.66" in started
    assert mac in started
    assert re.fullmatch(r"(container box|endpoint \w{12}): link mv\w+ removed from parent eth1, .*", stopped)
    assert re.fullmatch(r"network \w+: removed from parent eth1", removed)
