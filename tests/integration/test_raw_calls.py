"""Calls to the real service that no engine would make in this order or number."""

import json
import random
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from tests.integration.raw_hosts import at_once
from tests.lab.commands import wait_until
from tests.lab.docker_host import DockerHost
from tests.lab.engine import Engine
from tests.lab.lan import Lan
from tests.lab.plugin import Plugin

NETWORK = "0" * 63 + "1"
POOL = {"AddressSpace": "LocalDefault", "Pool": "10.9.0.0/16", "SubPool": "", "Options": {}, "V6": False}
GATEWAY = {"RequestAddressType": "com.docker.network.gateway"}
Answer = dict[str, Any]


@pytest.fixture
def host(lan: Lan) -> Iterator[DockerHost]:
    """Run our service where there is no engine, with a network of ours in it."""
    with Plugin(lan) as plugin:
        made = DockerHost(Engine(lan), plugin)  # the engine is never started
        yield made
        if not plugin.running:
            plugin.start()
        plugin.call("NetworkDriver.DeleteNetwork", {"NetworkID": NETWORK})
        plugin.stop()
        left = [each for each in made.remains() if not each.startswith(("row of pools", "row of addresses"))]
        assert left == []


def create_network(plugin: Plugin, pool: str = "10.9.0.0/16") -> None:
    """Make the network."""
    data = {"AddressSpace": "LocalDefault", "Pool": pool, "Gateway": "10.9.0.1/16"}
    options = {"com.docker.network.generic": {"parent": "eth1"}}
    body = {"NetworkID": NETWORK, "Options": options, "IPv4Data": [data], "IPv6Data": []}
    assert plugin.call("NetworkDriver.CreateNetwork", body) == {}


def endpoint_id(number: int) -> str:
    """Return a 64-digit id."""
    return f"{number:064x}"


def endpoint(number: int) -> Answer:
    """Return the body of a CreateEndpoint."""
    interface = {"Address": f"10.9.1.{number}/16", "AddressIPv6": "", "MacAddress": ""}
    return {"NetworkID": NETWORK, "EndpointID": endpoint_id(number), "Interface": interface, "Options": {}}


def named(number: int) -> Answer:
    """Return the body of every other call about an endpoint."""
    return {"NetworkID": NETWORK, "EndpointID": endpoint_id(number), "SandboxKey": "/var/run/docker/netns/1"}


def our_links(host: DockerHost) -> set[str]:
    """Return the names of the endpoints' links in the host's namespace."""
    return {name for name in host.lan.host_links() if name.startswith("mvt")}


def test_parallel_duplicate_endpoint_calls_agree(host: DockerHost) -> None:
    plugin = host.plugin
    create_network(plugin)
    numbers = [*range(1, 33), *range(1, 33)]
    random.Random(5).shuffle(numbers)
    answers = at_once([partial(plugin.call, "NetworkDriver.CreateEndpoint", endpoint(n)) for n in numbers])
    for number, answer in zip(numbers, answers, strict=True):
        assert answer == {"Interface": {"MacAddress": f"7a:42:0a:09:01:{number:02x}"}}
    assert len(our_links(host)) == 32
    answers = at_once([partial(plugin.call, "NetworkDriver.Join", named(n)) for n in numbers])
    links = {answer["InterfaceName"]["SrcName"] for answer in answers}
    assert links == our_links(host)
    removals = ("NetworkDriver.Leave", "NetworkDriver.DeleteEndpoint") * 32
    calls = [(method, number) for method, number in zip(removals, sorted(numbers), strict=True)]
    answers = at_once([partial(plugin.call, m, named(n)) for m, n in calls])
    assert answers == [{}] * 64
    wait_until(lambda: our_links(host) == set(), 10, "the links' end")


def test_racing_create_and_delete_leave_link_and_row_or_neither(host: DockerHost) -> None:
    """Whichever comes last, link and row are both there or both gone."""
    plugin = host.plugin
    create_network(plugin)
    calls: list[Callable[[], Answer]] = []
    for number in range(1, 17):
        calls += [partial(plugin.call, "NetworkDriver.CreateEndpoint", endpoint(number))] * 2
        calls += [partial(plugin.call, "NetworkDriver.DeleteEndpoint", named(number))] * 2
    random.Random(7).shuffle(calls)
    at_once(calls)
    plugin.stop()
    rows = {str(row[0]): str(row[1]) for row in host.rows()["endpoints"]}
    assert {json.loads(document)["link"] for document in rows.values()} == our_links(host)
    plugin.start()


def test_parallel_requests_get_distinct_addresses(host: DockerHost) -> None:
    plugin = host.plugin
    pool = plugin.call("IpamDriver.RequestPool", POOL)["PoolID"]
    other = plugin.call("IpamDriver.RequestPool", POOL)["PoolID"]
    assert pool != other
    gateway = {"PoolID": pool, "Address": "10.9.0.1", "Options": GATEWAY}
    answers = at_once([partial(plugin.call, "IpamDriver.RequestAddress", gateway)] * 8)
    assert [answer["Address"] for answer in answers] == ["10.9.0.1/16"] * 8
    asks: list[Callable[[], Answer]] = [
        partial(plugin.call, "IpamDriver.RequestAddress", {"PoolID": p, "Address": "", "Options": None})
        for p in (pool, other) * 24
    ]
    same = {"PoolID": pool, "Address": "10.9.200.200", "Options": None}
    asks += [partial(plugin.call, "IpamDriver.RequestAddress", same)] * 16
    answers = at_once(asks)
    granted = [answer["Address"] for answer in answers if "Address" in answer]
    assert "10.9.0.1/16" not in granted
    assert len(granted) == len(set(granted)) == 49, (
        "one address for each question, the static one for one of 16"
    )
    assert sum("10.9.200.200" in answer.get("Error", "") for answer in answers) == 15
    assert at_once([partial(plugin.call, "IpamDriver.ReleasePool", {"PoolID": pool})] * 4) == [{}] * 4
    assert plugin.call("IpamDriver.ReleasePool", {"PoolID": other}) == {}
    plugin.stop()
    rows = host.rows()
    assert (rows["pools"], rows["addresses"]) == ([], [])
    plugin.start()


def test_call_finishes_after_its_client_hung_up(host: DockerHost) -> None:
    """The engine hangs up when it is killed; what has been started is finished all the same."""
    plugin = host.plugin
    create_network(plugin)
    for number in range(1, 25):
        body = json.dumps(endpoint(number)).encode()
        request = (
            b"POST /NetworkDriver.CreateEndpoint HTTP/1.1\r\nHost: \r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        sent = (request + body)[: None if number % 3 else -10]  # some hang up before the body's end
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(plugin.socket))
            client.sendall(sent)
            time.sleep((number % 5) / 1000)
    complete = [number for number in range(1, 25) if number % 3]
    wait_until(lambda: len(our_links(host)) == len(complete), 10, "the links of all complete requests")
    plugin.stop()
    rows = {str(row[0]) for row in host.rows()["endpoints"]}
    assert rows == {endpoint_id(number) for number in complete}
    plugin.start()
    assert len(our_links(host)) == len(complete)
