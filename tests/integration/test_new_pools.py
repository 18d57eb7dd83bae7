"""Which network has which pool, where engines and users give little to tell."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from macvlan_twisted.protocol.messages import LOCAL_ADDRESS_SPACE
from tests.integration.containers import AT_ONCE
from tests.lab.commands import wait_until
from tests.lab.docker_host import Container, DockerHost
from tests.lab.lan import Lan
from tests.lab.plugin import DEFAULTS, Plugin

NICS = 2
OURS = "--ipam-driver=macvlan-twisted"
SUBNET = ("--subnet=192.168.77.0/24", "--gateway=192.168.77.1", "--ip-range=192.168.77.64/27")
ON_ETH1 = "--opt=parent=eth1"
USED = "192.168.77.90"


@contextmanager
def neighbour_has(lan: Lan, address: str) -> Iterator[str]:
    """Give the neighbour an address for a while, and tell its MAC."""
    lan.add_address("neighbour", f"{address}/24")
    try:
        yield lan.mac_of("neighbour")
    finally:
        lan.remove_address("neighbour", f"{address}/24")


def test_address_in_use_is_refused_beside_another_drivers_network(docker_host: DockerHost) -> None:
    """CreateNetwork never comes for that one, so its pool could be the next network's."""
    builtin = ("network", "create", "--driver=macvlan", OURS, *SUBNET, "--ipam-opt=parent=eth1", ON_ETH1)
    docker_host.engine.docker(*builtin, "builtin")
    docker_host.create("lan", OURS, *SUBNET, ON_ETH1)
    with neighbour_has(docker_host.lan, USED) as mac:
        for network in ("lan", "lan"):
            error = docker_host.start_refusal(f"--ip={USED}", network=network)
            assert f"{USED} is in use on eth1 by MAC {mac}" in error
    docker_host.engine.docker("network", "rm", "builtin")


def test_address_is_granted_to_one_of_two_networks(docker_host: DockerHost) -> None:
    builtin = ("network", "create", "--driver=macvlan", OURS, *SUBNET, "--ipam-opt=parent=eth1", ON_ETH1)
    docker_host.engine.docker(*builtin, "builtin")
    docker_host.create("lan", OURS, *SUBNET, ON_ETH1)
    # A MAC of its own, so that the clash of addresses is not hidden behind one of MACs.
    mac = "--mac-address=02:00:00:00:00:70"
    box = docker_host.start("box", f"--ip={USED}", mac, network="builtin")
    assert f"address {USED}" in docker_host.start_refusal(f"--ip={USED}", network="lan")
    box.remove()
    box = docker_host.start("box", f"--ip={USED}", network="lan")
    assert f"address {USED}" in docker_host.start_refusal(f"--ip={USED}", mac, network="builtin")
    box.remove()
    docker_host.engine.docker("network", "rm", "builtin")


def stored_pools(host: DockerHost) -> str:
    """Stop the plugin, read its rows of pools, and start it."""
    host.plugin.stop()
    rows = host.rows()["pools"]
    host.plugin.start()
    return str(rows)


@pytest.mark.one_engine
@pytest.mark.short_grace_periods
@pytest.mark.plugin_arguments("--conflict-detection", "off")
def test_living_container_keeps_its_address_with_detection_off(docker_host: DockerHost) -> None:
    """It is on another driver's network, which the engine has listed."""
    engine = docker_host.engine
    builtin = ("network", "create", "--driver=macvlan", OURS, *SUBNET, "--ipam-opt=parent=eth1", ON_ETH1)
    engine.docker(*builtin, "builtin")
    docker_host.start("box", f"--ip={USED}", AT_ONCE, network="builtin")
    engine_id = docker_host.network_id("none")
    wait_until(lambda: engine_id in stored_pools(docker_host), 30, "the engine's list", pause=3)
    error = docker_host.refusal(OURS, *SUBNET, f"--aux-address=nas={USED}", ON_ETH1)
    assert f"address {USED}" in error
    engine.docker("restart", "box")
    assert Container(engine, "box").addresses() == {f"{USED}/24"}


@pytest.mark.one_engine
def test_network_on_another_parent_than_its_pool_is_refused(docker_host: DockerHost) -> None:
    error = docker_host.refusal(OURS, *SUBNET, "--ipam-opt=parent=eth2", ON_ETH1)
    assert "--ipam-opt parent=eth2 is not the network's parent eth1" in error
    docker_host.plugin.stop()
    assert not any(docker_host.rows().values())
    docker_host.plugin.start()


@pytest.mark.one_engine
def test_subnets_that_no_lan_has_are_refused(docker_host: DockerHost) -> None:
    for subnet, word in {
        "224.1.0.0/16": "multicast",
        "127.1.0.0/16": "loopback",
        "240.0.0.0/24": "class E",
        "169.254.0.0/16": "--internal",
    }.items():
        error = docker_host.refusal(OURS, f"--subnet={subnet}", ON_ETH1)
        assert subnet in error
        assert word in error
    docker_host.create("lan", OURS, "--subnet=169.254.0.0/16", "--internal", ON_ETH1)
    (address,) = docker_host.start("box").addresses()
    assert address.startswith("169.254.0.")


def test_pools_keep_their_parents_in_any_order_of_networks() -> None:
    with Lan(nics=2) as lan, Plugin(lan, arguments=DEFAULTS) as plugin:

        def call(method: str, **body: Any) -> Any:
            answer = plugin.call(method, body)
            assert "Err" not in answer, answer
            return answer

        pools = {}
        for parent in ("eth1", "eth2"):
            pools[parent] = call(
                "IpamDriver.RequestPool",
                AddressSpace=LOCAL_ADDRESS_SPACE,
                Pool="192.168.77.0/24",
                SubPool="192.168.77.64/27",
                Options={"parent": parent},
                V6=False,
            )["PoolID"]
        for number, parent in enumerate(("eth2", "eth1")):
            data = {"AddressSpace": LOCAL_ADDRESS_SPACE, "Pool": "192.168.77.0/24"}
            call(
                "NetworkDriver.CreateNetwork",
                NetworkID=f"{number:064x}",
                Options={"com.docker.network.generic": {"parent": parent}},
                IPv4Data=[data],
                IPv6Data=[],
            )
        with neighbour_has(lan, USED) as mac:
            for parent, pool in pools.items():
                answer = plugin.call("IpamDriver.RequestAddress", {"PoolID": pool, "Address": USED})
                assert f"{USED} is in use on {parent} by MAC {mac}" in answer["Err"]
