"""The service restores links that others remove, and notices conflicts after a restart."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.lab.commands import wait_until
from tests.lab.frames import arp_announcement
from tests.lab.lan import Lan
from tests.lab.plugin import Plugin

NETWORK = "a" * 64
HOST, BOX = "192.168.77.200", "192.168.77.130"
STRANGER = "02:00:00:00:00:99"


def call(plugin: Plugin, method: str, body: dict[str, Any]) -> dict[str, Any]:
    """Make one call, which has to succeed."""
    answer = plugin.call(f"NetworkDriver.{method}", body)
    assert "Err" not in answer, answer
    return answer


def start_container(plugin: Plugin, **options: str) -> None:
    """Do what an engine with address management of its own asks for to start the first container."""
    data = {"AddressSpace": "LocalDefault", "Pool": "192.168.77.0/24", "Gateway": "192.168.77.1/24"}
    generic = {"com.docker.network.generic": {"parent": "eth1", **options}}
    call(
        plugin,
        "CreateNetwork",
        {"NetworkID": NETWORK, "Options": generic, "IPv4Data": [data], "IPv6Data": []},
    )
    about = {"NetworkID": NETWORK, "EndpointID": f"{1:064x}"}
    interface = {"Address": f"{BOX}/24", "AddressIPv6": "", "MacAddress": ""}
    call(plugin, "CreateEndpoint", {**about, "Interface": interface, "Options": {}})
    call(plugin, "Join", {**about, "SandboxKey": "/var/run/docker/netns/1"})


@contextmanager
def service(lan: Lan) -> Iterator[Plugin]:
    """Run our service, which is not to fail at anything."""
    with Plugin(lan) as plugin:
        yield plugin
        plugin.stop()
        assert "Traceback" not in plugin.log()


def our_link(lan: Lan) -> str:
    """Name our own link on the host, if there is one."""
    return next((name for name in lan.host_links() if name.startswith("mvh")), "")


def has_access(lan: Lan) -> bool:
    """Whether the host has its link, address and route."""
    link = our_link(lan)
    if not link:
        return False
    route = lan.run_in("host", "ip", "route", "show", "proto", "142")
    addresses = lan.run_in("host", "ip", "-o", "address", "show", "dev", link)
    ignore = lan.run_in("host", "cat", f"/proc/sys/net/ipv4/conf/{link}/arp_ignore")
    return f"{BOX} dev {link} scope link src {HOST}" in route and HOST in addresses and ignore.strip() == "1"


def test_removed_host_link_is_recreated_with_its_routes(lan: Lan) -> None:
    with service(lan) as plugin:
        start_container(plugin, host_access="true", host_address=HOST)
        assert has_access(lan)
        for _ in range(2):
            time.sleep(0.5)  # a check that begins while the link is there does not log that it was gone
            index = lan.host_links()[our_link(lan)]["ifindex"]
            lan.run_in("host", "ip", "link", "delete", our_link(lan))
            wait_until(lambda: has_access(lan), 10, "access from the host")
            assert lan.host_links()[our_link(lan)]["ifindex"] != index
        assert "gone from parent eth1, created again" in plugin.log()
        assert HOST in lan.run_in("neighbour", "ping", "-c1", "-w5", HOST)


def test_routes_return_when_the_host_link_is_up_again(lan: Lan) -> None:
    with service(lan) as plugin:
        start_container(plugin, host_access="true", host_address=HOST)
        lan.run_in("host", "ip", "link", "set", our_link(lan), "down")
        assert not has_access(lan)
        lan.run_in("host", "ip", "link", "set", our_link(lan), "up")
        wait_until(lambda: has_access(lan), 10, "access from the host")


@pytest.mark.parametrize("late_parent", [False, True])
def test_conflict_after_a_restart_is_logged(lan: Lan, late_parent: bool) -> None:
    with service(lan) as plugin:
        start_container(plugin)
        plugin.stop()
        if late_parent:
            lan.run_in("host", "ip", "link", "set", "eth1", "name", "away0")
        plugin.start()
        if late_parent:
            lan.run_in("host", "ip", "link", "set", "away0", "name", "eth1")
        wait_for_packet_socket(lan)
        lan.send_frame("neighbour", arp_announcement(STRANGER, BOX))
        wait_until(lambda: STRANGER in plugin.log(), 10, "a log line about the conflict")


def wait_for_packet_socket(lan: Lan) -> None:
    """Wait until the service listens on the parent."""
    sockets = ("grep", "-c", "^", "/proc/net/packet")
    wait_until(lambda: int(lan.run_in("host", *sockets)) > 1, 10, "a packet socket")


def test_parent_answering_for_the_hosts_address_is_no_conflict(lan: Lan) -> None:
    with service(lan) as plugin:
        start_container(plugin, host_access="true", host_address=HOST)
        plugin.stop()
        plugin.start()
        wait_for_packet_socket(lan)
        nic = lan.host_links()["eth1"]["address"]
        with lan.capture("neighbour", f"arp[6:2] == 2 and arp src host {HOST}", count=2, seconds=10) as heard:
            assert HOST in lan.run_in("neighbour", "ping", "-c1", "-w5", HOST)
            answers = "".join(heard)
        assert nic in answers, "the parent does not answer: this proves nothing"
        lan.send_frame("neighbour", arp_announcement(STRANGER, HOST))
        wait_until(lambda: STRANGER in plugin.log(), 10, "a word about it")
        (line,) = [line for line in plugin.log().splitlines() if ": conflict on" in line]
        assert nic not in line
        assert f"address {HOST}: conflict on eth1, in use by the host (MAC " in line
