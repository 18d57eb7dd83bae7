"""Two docker hosts on one LAN, with real engines, hand out addresses of one range."""

from functools import partial

import pytest

from tests.integration.containers import AT_ONCE, OUR_IPAM, STATIONS, SUBNET
from tests.integration.raw_hosts import at_once, consecutive
from tests.lab.docker_host import DockerHost, plugin_error

EACH = 12
"""Containers on each host, all started together. ``test_two_raw_hosts.py`` has fifty, without engines."""
IN_A_SHARE = 10
"""Containers on each host that has its own part of the range."""
THIRTY_TWO = ("--ipam-driver=macvlan-twisted", *SUBNET, "--ip-range=192.168.77.128/27")
SIXTEEN = ("--ipam-driver=macvlan-twisted", *SUBNET, "--ip-range=192.168.77.128/28")
Hosts = tuple[DockerHost, DockerHost]


@pytest.fixture
def networks(two_hosts: Hosts) -> Hosts:
    """Give two hosts that have a network of the same name and range each."""
    at_once([partial(host.create, "lan", *OUR_IPAM) for host in two_hosts])
    return two_hosts


@pytest.mark.one_engine
def test_containers_on_two_hosts_have_distinct_addresses(networks: Hosts) -> None:
    names = [f"c{number}" for number in range(EACH)]
    run = ("run", "--detach", "--network=lan", AT_ONCE)

    def start(host: DockerHost, name: str) -> None:
        # So many at once on two processors: an engine takes its time.
        host.engine.docker(*run, f"--name={name}", "busybox", "sleep", "3600", timeout=600)

    at_once([partial(start, host, name) for name in names for host in networks])
    output = [
        each["NetworkSettings"]["Networks"]["lan"]
        for host in networks
        for each in host.engine.docker_json("inspect", *names)
    ]
    addresses = [str(each["IPAddress"]) for each in output]
    assert len(set(addresses)) == 2 * EACH, f"handed out twice: {sorted(addresses)}"
    assert len({each["MacAddress"] for each in output}) == 2 * EACH

    def unreached(host: DockerHost) -> dict[str, str]:
        # One of the other host's containers, too.
        others = (*STATIONS, addresses[-1 if host is networks[0] else 0])
        script = "; ".join(f"ping -c 1 -w 5 {each} > /dev/null || echo {each}" for each in others)
        found = {name: host.engine.docker("exec", name, "sh", "-c", script).strip() for name in names}
        return {name: missing for name, missing in found.items() if missing}

    assert at_once([partial(unreached, host) for host in networks]) == [{}, {}]
    for host in networks:
        assert ": conflict on" not in host.plugin.log(), "somebody has a container's address, too"
    at_once([partial(host.engine.docker, "rm", "--force", *names, timeout=600) for host in networks])


@pytest.mark.one_engine
def test_addresses_stay_reserved_while_their_plugin_is_away(two_hosts: Hosts) -> None:
    """They answer for themselves; and what was held by that plugin is free."""
    first, second = two_hosts
    first.create("lan", *SIXTEEN)
    boxes = [first.start(f"box{number}", AT_ONCE) for number in range(3)]
    first.plugin.stop()
    second.create("lan", *SIXTEEN)
    others = [second.start(f"box{number}", AT_ONCE) for number in range(3)]
    theirs = {address for each in boxes for address in each.addresses()}
    assert theirs == {f"{each}/24" for each in consecutive("192.168.77.128", 3)}
    assert {address for each in others for address in each.addresses()} & theirs == set()
    assert all(each.ping(STATIONS[0]) for each in (*boxes, *others))


@pytest.mark.one_engine
def test_neighbour_keeps_addresses_it_takes_from_the_range(two_hosts: Hosts) -> None:
    """A silent address that was there before, and a prefetched one that the neighbour announces."""
    host, lan = two_hosts[0], two_hosts[0].lan
    before, later = "192.168.77.128", "192.168.77.130"
    lan.add_address("neighbour", f"{before}/24")
    try:
        host.create("lan", *OUR_IPAM)
        assert host.start("first", AT_ONCE).addresses() == {"192.168.77.129/24"}
        lan.add_address("neighbour", f"{later}/24")
        lan.forget_neighbours("neighbour")
        lan.run_in("neighbour", "ping", "-c", "1", "-w", "5", "-I", later, STATIONS[0])
        assert host.start("second", AT_ONCE).addresses() == {"192.168.77.131/24"}
        mac = lan.mac_of("neighbour")
        log = host.plugin.log()
        assert f"address {before}: not allocated, in use on eth1 by MAC {mac}, which answers for it" in log
        assert (
            f"address {later}: not allocated, in use on eth1 by MAC {mac}, which took it while it was held for a container"
            in log
        )
    finally:
        for each in (before, later):
            lan.attempt_in("neighbour", "ip", "address", "delete", f"{each}/24", "dev", "eth1")


@pytest.mark.one_engine
def test_shares_alone_keep_addresses_distinct(two_hosts: Hosts) -> None:
    """Without conflict detection neither host learns of the other's addresses."""
    off = ("--opt=conflict_detection=off", "--ipam-opt=conflict_detection=off")
    names = [f"c{number}" for number in range(IN_A_SHARE)]

    def start_all(host: DockerHost, share: str) -> list[str]:
        host.plugin.stop()
        host.plugin.start("--fleet-share", share)
        host.create("lan", *THIRTY_TWO, *off)
        return [each for name in names for each in host.start(name, AT_ONCE).addresses()]

    shares = at_once([partial(start_all, host, f"{k}/2") for k, host in enumerate(two_hosts, 1)])
    assert shares == [
        [f"{each}/24" for each in consecutive(first, IN_A_SHARE)]
        for first in ("192.168.77.128", "192.168.77.144")
    ]
    error = plugin_error(two_hosts[0].start_refusal("--ip=192.168.77.150", AT_ONCE))
    assert "belongs to another host, because this one has --fleet-share 1/2" in error
