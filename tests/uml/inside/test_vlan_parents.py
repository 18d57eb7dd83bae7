"""VLANs that the plugin makes for networks: which, upon what, and when they go. No container is needed for that."""

import os
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.lab.commands import wait_until
from tests.lab.engine import Engine
from tests.lab.plugin import Plugin
from tests.uml.inside.networks import attempt_create, create, end, remove, start
from tests.uml.inside.vlans import NIC, Host

pytestmark = pytest.mark.usefixtures("plugin")

VLAN = f"{NIC}.20"
MEETINGS = range(0, 40, 1 if os.environ.get("MACVLAN_TWISTED_TEST_ALL") == "1" else 3)
"""How many milliseconds after the first of two calls the second one comes, in one try after the other."""


@pytest.mark.parametrize("options", [(f"parent={VLAN}",), (f"parent={NIC}", "vlan_id=20")])
def test_absent_vlan_is_created_and_brought_up(engine: Engine, host: Host, options: tuple[str, ...]) -> None:
    """Both spellings make 802.1Q VLAN 20, up, upon a NIC that was down and is up now, and nothing else."""
    assert not host.is_up(NIC)
    create(engine, "n20", 20, *options)
    assert host.extra == {VLAN}
    assert host.vlan(VLAN) == ("802.1Q", 20, NIC)
    assert host.is_up(NIC)
    assert host.is_up(VLAN)
    assert host.links[VLAN]["ifalias"].startswith("macvlan-twisted/"), "nobody can tell whose it is"
    remove(engine, "n20")
    assert not host.extra


@pytest.mark.parametrize("options", [(f"parent={VLAN}.30",), (f"parent={VLAN}", "vlan_id=30")])
def test_nested_vlan_is_created_and_removed_whole(
    engine: Engine, host: Host, options: tuple[str, ...]
) -> None:
    """The inner VLAN with the outer one below it, both up and both ours."""
    inner = f"{VLAN}.30"
    create(engine, "n30", 30, *options)
    assert host.extra == {VLAN, inner}
    assert host.vlan(VLAN) == ("802.1Q", 20, NIC)
    assert host.vlan(inner) == ("802.1Q", 30, VLAN)
    assert host.is_up(NIC)
    assert host.is_up(VLAN)
    assert host.is_up(inner)
    remove(engine, "n30")
    assert not host.extra


def test_inner_vlan_leaves_another_networks_outer_vlan(engine: Engine, host: Host) -> None:
    """Of two VLANs that we made, only that which serves no other network goes."""
    create(engine, "n30", 30, f"parent={VLAN}.30")
    create(engine, "n20", 20, f"parent={VLAN}")
    remove(engine, "n30")
    assert host.extra == {VLAN}
    remove(engine, "n20")
    assert not host.extra


def test_vlan_in_a_foreign_service_vlan_is_created(engine: Engine, host: Host) -> None:
    """802.1ad outside, made by the administrator; our 802.1Q inside goes, theirs stays."""
    host.add_vlan("service", NIC, 22, "802.1ad")
    create(engine, "n30", 30, "parent=service", "vlan_id=30")
    assert host.vlan("service.30") == ("802.1Q", 30, "service")
    assert host.is_up("service")
    remove(engine, "n30")
    assert host.extra == {"service"}


def test_service_vlan_differs_from_the_vlan_of_that_number(engine: Engine, host: Host) -> None:
    """802.1ad 20 and 802.1Q 20 are two LANs."""
    host.add_vlan("service", NIC, 20, "802.1ad")
    create(engine, "n20", 20, f"parent={VLAN}")
    assert host.vlan(VLAN) == ("802.1Q", 20, NIC)


def test_vlan_goes_with_its_last_network(engine: Engine, host: Host) -> None:
    """However the networks spell it."""
    create(engine, "first", 20, f"parent={VLAN}")
    create(engine, "second", 21, f"parent={NIC}", "vlan_id=20")
    assert host.extra == {VLAN}
    remove(engine, "first")
    assert host.extra == {VLAN}
    remove(engine, "second")
    assert not host.extra


@pytest.mark.parametrize("name", [VLAN, "office"])
def test_foreign_vlan_is_used_and_stays(engine: Engine, host: Host, name: str) -> None:
    """Used under whatever name it has, brought up, and left alone."""
    host.add_vlan(name, NIC, 20)
    create(engine, "n20", 20, f"parent={name}")
    assert host.is_up(name)
    create(engine, "same", 21, f"parent={NIC}", "vlan_id=20")
    assert host.extra == {name}
    remove(engine, "n20")
    remove(engine, "same")
    assert host.extra == {name}


def test_dot_in_a_links_name_is_no_vlan(engine: Engine, host: Host) -> None:
    """A name is not what a link is: a dummy link called dmz.7 is a parent like any other."""
    host.ip("link", "add", "name", "dmz.7", "up", "type", "dummy")
    create(engine, "n7", 7, "parent=dmz.7")
    assert host.extra == {"dmz.7"}
    create(engine, "n8", 8, "parent=dmz.7.8")
    assert host.vlan("dmz.7.8") == ("802.1Q", 8, "dmz.7")
    remove(engine, "n8")
    remove(engine, "n7")
    assert host.extra == {"dmz.7"}


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_restarted_service_remembers_its_vlans(engine: Engine, host: Host, plugin: Plugin, how: str) -> None:
    """Ours are removed with their networks after a restart, another's are not, and none goes meanwhile."""
    host.add_vlan("office", NIC, 21)
    create(engine, "ours", 20, f"parent={VLAN}.30")
    create(engine, "theirs", 21, "parent=office")
    (plugin.stop if how == "stop" else plugin.kill)()
    assert host.extra == {"office", VLAN, f"{VLAN}.30"}
    plugin.start()
    assert host.extra == {"office", VLAN, f"{VLAN}.30"}
    remove(engine, "ours")
    remove(engine, "theirs")
    assert host.extra == {"office"}


def test_vlan_lost_meanwhile_is_recreated_at_start(engine: Engine, host: Host, plugin: Plugin) -> None:
    """As after a reboot: the engine still has the network, the kernel has no VLAN."""
    create(engine, "n30", 30, f"parent={VLAN}.30")
    plugin.kill()
    host.ip("link", "delete", VLAN)
    host.ip("link", "set", NIC, "down")
    plugin.start()
    assert host.extra == {VLAN, f"{VLAN}.30"}
    assert host.is_up(NIC)
    remove(engine, "n30")
    assert not host.extra


def test_vlan_returns_with_its_nic(engine: Engine, host: Host, plugin: Plugin) -> None:
    """At once by the event, with our link upon it, the host's address and the routes to containers."""
    parent = f"{VLAN}.30"
    create(engine, "n30", 30, f"parent={parent}", "host_access=true", host_address="10.30.0.99")
    start(engine, "one", "n30", "10.30.0.11")
    before = host.extra
    assert before > {VLAN, parent}
    for _ in range(2):
        host.lan.unplug("host", NIC)
        wait_until(lambda: f"parent {parent}: absent, because {NIC} is absent" in plugin.log(), 60, "a word")
        assert not host.extra
        host.lan.plug("host", NIC)
        wait_until(lambda: host.extra == before, 60, "the VLANs and our link")
        assert host.vlan(VLAN) == ("802.1Q", 20, NIC)
        assert host.vlan(parent) == ("802.1Q", 30, VLAN)
        wait_until(lambda: routes_to_containers(host) == ["10.30.0.11"], 60, "the route")
    engine.docker("restart", "--time=0", "one")
    assert host.lan.ping("host", "10.30.0.11")
    end(engine, "one")
    remove(engine, "n30")
    assert not host.extra


def test_service_starts_without_the_nic_below_a_vlan(engine: Engine, host: Host, plugin: Plugin) -> None:
    """It is awaited, the network is kept, and a container that is started too early is told why it failed."""
    create(engine, "n20", 20, f"parent={VLAN}")
    engine.docker("create", "--name=one", "--network=n20", "--ip=10.20.0.11", "busybox", "sleep", "600")
    plugin.stop()
    host.lan.unplug("host", NIC)
    plugin.start()
    refused = engine.attempt_docker("start", "one")
    assert f"parent {VLAN} has been absent for " in refused.stderr
    assert f"because {NIC} is absent" in refused.stderr
    host.lan.plug("host", NIC)
    wait_until(lambda: VLAN in host.extra, 60, "the VLAN")
    engine.docker("start", "one")
    end(engine, "one")
    remove(engine, "n20")
    assert not host.extra


def test_vlan_follows_the_nics_name(engine: Engine, host: Host, plugin: Plugin) -> None:
    """With containers on it, it stays until they have gone; nothing of others is touched."""
    create(engine, "n20", 20, f"parent={VLAN}")
    start(engine, "one", "n20", "10.20.0.11")
    host.ip("link", "set", NIC, "down")  # kernels before 6.2 rename no link that is up
    host.ip("link", "set", NIC, "name", "lan0")
    host.ip("link", "set", "lan0", "up")
    host.ip("link", "add", NIC, "type", "dummy")
    try:
        wait_until(lambda: f"VLAN {VLAN} is on the wrong NIC" in plugin.log(), 60, "a word")
        assert host.vlan(VLAN) == ("802.1Q", 20, "lan0")
        engine.docker("restart", "--time=0", "one")
        assert host.vlan(VLAN) == ("802.1Q", 20, NIC)
    finally:
        end(engine, "one")
        host.ip("link", "delete", NIC)
        host.ip("link", "set", "lan0", "down")
        host.ip("link", "set", "lan0", "name", NIC)
    wait_until(lambda: VLAN in host.extra, 60, "the VLAN")
    assert host.vlan(VLAN) == ("802.1Q", 20, NIC)
    remove(engine, "n20")
    assert not host.extra


def test_nic_taken_down_below_a_vlan_stays_down(host: Host, engine: Engine) -> None:
    """It is somebody's wish; when it is up again, so is the VLAN, with the host's routes."""
    create(engine, "n20", 20, f"parent={VLAN}", "host_access=true", host_address="10.20.0.99")
    start(engine, "one", "n20", "10.20.0.11")
    host.ip("link", "set", NIC, "down")
    time.sleep(1)
    assert not host.is_up(NIC)
    host.ip("link", "set", NIC, "up")
    wait_until(lambda: routes_to_containers(host) == ["10.20.0.11"], 60, "the route")
    assert host.is_up(VLAN)
    assert host.lan.ping("host", "10.20.0.11")
    end(engine, "one")
    remove(engine, "n20")
    assert not host.extra


def test_removed_dummy_link_is_recreated(engine: Engine, host: Host) -> None:
    """Containers on it have lost their links; those that start find the same LAN."""
    create(engine, "inside", 40, internal=True)
    (name,) = host.extra
    host.ip("link", "delete", name)
    wait_until(lambda: host.extra == {name}, 60, "the dummy link")
    remove(engine, "inside")
    assert not host.extra


def test_foreign_vlan_in_place_of_ours_stays(engine: Engine, host: Host) -> None:
    """Ours was deleted by hand; what has its name now is not ours."""
    create(engine, "n20", 20, f"parent={VLAN}")
    host.replace_vlan(VLAN, NIC, 20)
    remove(engine, "n20")
    assert host.extra == {VLAN}


def test_vlan_below_a_foreign_link_stays(engine: Engine, host: Host) -> None:
    """The kernel removes what hangs on a removed link; the VLAN stays for its sake, and the network goes."""
    create(engine, "n20", 20, f"parent={VLAN}")
    host.ip("link", "add", "link", VLAN, "name", "theirs", "type", "macvlan", "mode", "bridge")
    remove(engine, "n20")
    assert host.extra == {VLAN, "theirs"}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ((f"parent={NIC}.4095",), "4095"),
        ((f"parent={NIC}.0",), "vlan id"),
        ((f"parent={NIC}.office",), "office"),
        (("parent=absent.20",), "absent"),
        ((f"parent={NIC}", "vlan_id=twenty"), "twenty"),
        ((f"parent={VLAN}.30", "mtu=9000"), "9000"),
        ((f"parent={VLAN}", "mode=source"), "source_macs"),
    ],
)
def test_refused_network_leaves_no_vlan_and_says_why(
    engine: Engine, host: Host, options: tuple[str, ...], complaint: str
) -> None:
    """The complaint names what was wrong, and the kernel looks as before."""
    refused = attempt_create(engine, "bad", 20, *options)
    assert refused.status != 0
    assert complaint in refused.stderr
    assert not host.extra


def test_passthru_has_a_vlan_to_itself(engine: Engine, host: Host) -> None:
    """passthru has its VLAN alone; the refused second network must not take the VLAN with it."""
    create(engine, "n20", 20, f"parent={VLAN}", "macvlan_mode=passthru")
    refused = attempt_create(engine, "second", 21, f"parent={NIC}", "vlan_id=20")
    assert refused.status != 0
    assert host.extra == {VLAN}
    remove(engine, "n20")
    assert not host.extra


def routes_to_containers(host: Host) -> list[str]:
    """Return where the host's own routes to containers lead."""
    return [route["dst"] for route in host.lan.routes("host", "proto", "142")]


def network_on(parent: str) -> dict[str, Any]:
    """What the engine says when it has a network made on this parent."""
    return {
        "NetworkID": secrets.token_hex(32),
        "Options": {"com.docker.network.generic": {"parent": parent}},
        "IPv4Data": [{"AddressSpace": "LocalDefault", "Pool": "10.20.0.0/24", "Gateway": "10.20.0.1/24"}],
        "IPv6Data": [],
    }


def test_vlan_stays_while_another_network_is_created_on_it(host: Host, plugin: Plugin) -> None:
    """Networks are made and removed in parallel; whoever is made upon a VLAN has it.

    A try removes an endpoint and its network while it makes another network on the same VLAN.
    """

    def call(method: str, **body: Any) -> None:
        answer = plugin.call(f"NetworkDriver.{method}", body)
        assert not answer.get("Err"), f"{method}: {answer}"

    def retire(network: dict[str, Any], endpoint: dict[str, Any]) -> None:
        call("DeleteEndpoint", **endpoint)
        call("DeleteNetwork", **network)

    old = network_on(VLAN)
    call("CreateNetwork", **old)
    with ThreadPoolExecutor(2) as threads:
        for later in MEETINGS:
            new = network_on(VLAN)
            endpoint = {"NetworkID": old["NetworkID"], "EndpointID": secrets.token_hex(32)}
            call("CreateEndpoint", **endpoint, Interface={"Address": "10.20.0.5/24"}, Options={})
            retired = threads.submit(retire, old, endpoint)
            time.sleep(later / 1000)
            made = threads.submit(call, "CreateNetwork", **new)
            retired.result()
            made.result()
            # Our own link is there once an endpoint's address was looked for, and goes with the VLAN at the latest.
            remaining = {name for name in host.extra if not name.startswith("mvh")}
            assert remaining == {VLAN}, f"{later} ms later"
            old = new
    call("DeleteNetwork", **old)
    assert not host.extra
