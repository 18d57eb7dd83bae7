"""What the service does with its links when NICs are taken out, put back, renamed and swapped: by the kernel's events."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.test_link_monitor import call, service
from tests.lab.commands import wait_until
from tests.lab.frames import arp_announcement
from tests.lab.lan import Lan
from tests.lab.plugin import Plugin

STRANGER = "02:00:00:00:00:99"
NETS = {"eth2": ("a" * 64, 2), "eth3": ("b" * 64, 3)}


@pytest.fixture
def lan() -> Iterator[Lan]:
    """Give a docker host with three NICs."""
    with Lan(nics=3) as made:
        yield made


def box(nic: str) -> str:
    """Name the container's address on a NIC's network."""
    return f"192.168.77.{20 * NETS[nic][1]}"


def host(nic: str) -> str:
    """Name the host's address on a NIC's network."""
    return f"192.168.77.{200 + NETS[nic][1]}"


def create_network(plugin: Plugin, nic: str, parent: str = "", **options: str) -> None:
    """Make a network with access from the host, as an engine with address management of its own does."""
    data = {"AddressSpace": "LocalDefault", "Pool": "192.168.77.0/24", "Gateway": "192.168.77.1/24"}
    generic = {"parent": parent or nic, "host_access": "true", "host_address": host(nic), **options}
    body = {"Options": {"com.docker.network.generic": generic}, "IPv4Data": [data], "IPv6Data": []}
    call(plugin, "CreateNetwork", {"NetworkID": NETS[nic][0], **body})


def about(nic: str) -> dict[str, str]:
    """Name the one endpoint of a NIC's network."""
    return {"NetworkID": NETS[nic][0], "EndpointID": f"{NETS[nic][1]:064x}"}


def start_container(lan: Lan, plugin: Plugin, nic: str) -> None:
    """Start one, as far as a container consists of its link."""
    interface = {"Address": f"{box(nic)}/24", "AddressIPv6": "", "MacAddress": ""}
    call(plugin, "CreateEndpoint", {**about(nic), "Interface": interface, "Options": {}})
    joined = call(plugin, "Join", {**about(nic), "SandboxKey": "/var/run/docker/netns/1"})
    # Into another namespace, as the engine does.
    link = joined["InterfaceName"]["SrcName"]
    lan.run_in("host", "ip", "link", "set", link, "netns", lan.namespace("gateway"), "name", f"c-{nic}", "up")


def end_container(plugin: Plugin, nic: str) -> None:
    """End one; every call has to succeed."""
    call(plugin, "EndpointOperInfo", about(nic))
    call(plugin, "Leave", about(nic))
    call(plugin, "DeleteEndpoint", about(nic))


ANNOUNCED = ("sleep", "3")
"""For so long a container that has just joined is announced."""


def links(lan: Lan) -> dict[str, dict[str, Any]]:
    """Return the host's links, each with the index of the one that it hangs on."""
    return {each["ifname"]: each for each in json.loads(lan.run_in("host", "ip", "-json", "address"))}


def has_access(lan: Lan, nic: str, parent: str = "") -> bool:
    """Whether our host link is on the right parent, with the host's address and a route to the container."""
    for name, link in links(lan).items():
        if any(each.get("local") == host(nic) for each in link["addr_info"]):
            routes = lan.attempt_in("host", "ip", "route", "show", "proto", "142", "dev", name).stdout
            return link.get("link") == (parent or nic) and f"{box(nic)} scope link src {host(nic)}" in routes
    return False


def mac_is_heard(lan: Lan, plugin: Plugin, nic: str) -> bool:
    """Whether the service notices a stranger with the container's address."""
    lan.send_frame("neighbour", arp_announcement(STRANGER, box(nic)))
    return f"address {box(nic)}: conflict on " in plugin.log()


def wait_for_words(plugin: Plugin, words: str, times: int = 1) -> None:
    """Wait until something was logged for the first, second ... time."""
    wait_until(lambda: plugin.log().count(words) >= times, 10, f"{words} for time {times}")
    assert plugin.log().count(words) == times


def quiet(lan: Lan, plugin: Plugin) -> None:
    """Insist that nothing goes on: neither lines in the log nor changes of links."""
    lan.run_in("host", *ANNOUNCED)
    before, known = len(plugin.log()), links(lan)
    lan.run_in("host", "sleep", "2")
    assert plugin.log()[before:] == ""
    assert {name: each["ifindex"] for name, each in links(lan).items()} == {
        name: each["ifindex"] for name, each in known.items()
    }


def test_host_access_returns_with_its_nic(lan: Lan) -> None:
    with service(lan) as plugin:
        create_network(plugin, "eth2")
        start_container(lan, plugin, "eth2")
        assert has_access(lan, "eth2")
        for number in (1, 2, 3):
            lan.unplug("host", "eth2")
            wait_for_words(plugin, ": absent; containers on it", number)
            lan.plug("host", "eth2")
            wait_for_words(plugin, "parent eth2: present again after", number)
            wait_until(lambda: has_access(lan, "eth2"), 10, "access from the host")
        wait_until(lambda: mac_is_heard(lan, plugin, "eth2"), 10, "a word about the stranger")
        end_container(plugin, "eth2")
        start_container(lan, plugin, "eth2")
        assert "tries again within a minute" not in plugin.log()
        quiet(lan, plugin)


def test_host_access_returns_with_a_nic_replaced_at_once(lan: Lan) -> None:
    with service(lan) as plugin:
        create_network(plugin, "eth2")
        start_container(lan, plugin, "eth2")
        for _ in range(5):
            lan.unplug("host", "eth2")
            lan.plug("host", "eth2")
        wait_until(lambda: has_access(lan, "eth2"), 10, "access from the host")
        end_container(plugin, "eth2")
        start_container(lan, plugin, "eth2")
        quiet(lan, plugin)


def test_renamed_nic_keeps_its_links(lan: Lan) -> None:
    """Also when it has its name back, and while the service was restarted in between."""
    with service(lan) as plugin:
        create_network(plugin, "eth2")
        start_container(lan, plugin, "eth2")
        before = {name: each["ifindex"] for name, each in links(lan).items()}
        for number, restart in enumerate((False, True), start=1):
            lan.run_in("host", "ip", "link", "set", "eth2", "name", "lan0")
            wait_for_words(plugin, "parent eth2: absent; containers on it", number)
            assert has_access(lan, "eth2", "lan0")
            assert lan.ping("host", "192.168.77.2")
            if restart:
                plugin.stop()
                plugin.start()
                assert has_access(lan, "eth2", "lan0")
            else:
                wait_until(lambda: mac_is_heard(lan, plugin, "eth2"), 10, "a word about the stranger")
            quiet(lan, plugin)
            lan.run_in("host", "ip", "link", "set", "lan0", "name", "eth2")
            wait_for_words(plugin, "parent eth2: present again after", number)
            assert {name: each["ifindex"] for name, each in links(lan).items()} == before
            assert has_access(lan, "eth2")
        end_container(plugin, "eth2")


def test_host_link_follows_the_parents_name(lan: Lan) -> None:
    with service(lan) as plugin:
        create_network(plugin, "eth2")
        start_container(lan, plugin, "eth2")
        lan.run_in("host", "ip", "link", "set", "eth2", "name", "lan0")
        other = ("type", "veth", "peer", "name", "other", "netns", lan.namespace("switch"))
        lan.run_in("host", "ip", "link", "add", "eth2", *other)
        lan.run_in("switch", "ip", "link", "set", "other", "master", "br0", "up")
        lan.run_in("host", "ip", "link", "set", "eth2", "up")
        wait_until(lambda: has_access(lan, "eth2"), 10, "access from the host")
        wait_until(lambda: mac_is_heard(lan, plugin, "eth2"), 10, "a word about the stranger")
        assert "lan0" in links(lan)
        gateway = lan.links("gateway")
        assert "c-eth2" in gateway, "the running container has lost its link"
        quiet(lan, plugin)
        end_container(plugin, "eth2")


def test_host_links_follow_swapped_nic_names(lan: Lan) -> None:
    with service(lan) as plugin:
        for nic in ("eth2", "eth3"):
            create_network(plugin, nic)
            start_container(lan, plugin, nic)
        names = set(links(lan))
        indices = {nic: links(lan)[nic]["ifindex"] for nic in ("eth2", "eth3")}
        for _ in range(3):
            swap = "link set eth2 name x; link set eth3 name eth2; link set x name eth3".replace("; ", "\n")
            lan.run_in("host", "sh", "-c", f"printf '%s\n' '{swap}' | ip -batch -")
        for nic in ("eth2", "eth3"):
            wait_until(lambda nic=nic: has_access(lan, nic), 10, f"access from the host by {nic}")  # type: ignore[misc]
        assert links(lan)["eth2"]["ifindex"] == indices["eth3"]
        assert set(links(lan)) == names
        assert {"c-eth2", "c-eth3"} <= set(lan.links("gateway"))
        quiet(lan, plugin)
        for nic in ("eth2", "eth3"):
            end_container(plugin, nic)


def test_nic_down_and_carrier_loss_disturb_nothing(lan: Lan) -> None:
    with service(lan) as plugin:
        create_network(plugin, "eth2")
        start_container(lan, plugin, "eth2")
        known = {name: each["ifindex"] for name, each in links(lan).items()}
        lan.run_in("host", *ANNOUNCED)
        for _ in range(3):
            lan.link("host", "down", "eth2")
            lan.link("host", "up", "eth2")
            lan.cable("host", "out", "eth2")
            lan.cable("host", "in", "eth2")
        lan.link("host", "down", "eth2")
        quiet(lan, plugin)
        assert "UP" not in links(lan)["eth2"]["flags"], "a NIC that its owner took down was brought up"
        lan.link("host", "up", "eth2")
        wait_until(lambda: has_access(lan, "eth2"), 10, "access from the host")
        assert {name: each["ifindex"] for name, each in links(lan).items()} == known
        assert ": absent" not in plugin.log()
        end_container(plugin, "eth2")


def test_nic_that_becomes_a_bridge_port_is_logged_once(lan: Lan) -> None:
    with service(lan) as plugin:
        create_network(plugin, "eth2")
        lan.unplug("host", "eth2")
        wait_for_words(plugin, ": absent; containers on it")
        lan.run_in("host", "ip", "link", "add", "br7", "type", "bridge")
        make = "link add eth2 type veth peer name far\nlink set eth2 master br7 up\nlink set far up"
        lan.run_in("host", "sh", "-c", f"printf '%s\n' '{make}' | ip -batch -")
        wait_for_words(plugin, "eth2 is a port of bridge br7")
        interface = {"Address": f"{box('eth2')}/24", "AddressIPv6": "", "MacAddress": ""}
        refused = plugin.call(
            "NetworkDriver.CreateEndpoint", {**about("eth2"), "Interface": interface, "Options": {}}
        )
        assert "eth2 is a port of bridge br7" in refused["Err"]
        quiet(lan, plugin)
        lan.run_in("host", "ip", "link", "set", "eth2", "nomaster")
        start_container(lan, plugin, "eth2")
        wait_until(lambda: has_access(lan, "eth2"), 10, "access from the host")
        end_container(plugin, "eth2")


def test_nic_that_returns_with_a_smaller_mtu_is_refused(lan: Lan) -> None:
    with service(lan) as plugin:
        create_network(plugin, "eth2", mtu="1500")
        lan.unplug("host", "eth2")
        lan.plug("host", "eth2")
        lan.run_in("host", "ip", "link", "set", "eth2", "mtu", "1400")
        wait_for_words(plugin, "mtu 1500 is greater than the MTU of parent eth2, 1400")
        quiet(lan, plugin)
        lan.run_in("host", "ip", "link", "set", "eth2", "mtu", "1500")
        start_container(lan, plugin, "eth2")
        end_container(plugin, "eth2")


def test_lost_events_do_not_lose_host_access(lan: Lan) -> None:
    flood = "for i in $(seq 4000); do echo link set eth1 alias a$i; echo link set eth1 alias b$i; done"
    with service(lan) as plugin:
        create_network(plugin, "eth2")
        start_container(lan, plugin, "eth2")
        lan.unplug("host", "eth2")
        lan.run_in("host", "sh", "-c", f"{flood} | ip -batch -")
        lan.plug("host", "eth2")
        wait_until(lambda: has_access(lan, "eth2"), 20, "access from the host")
        end_container(plugin, "eth2")
