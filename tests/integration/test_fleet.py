"""Docker hosts with real engines on one LAN, and a real etcd, share one range of addresses."""

from collections.abc import Iterator
from functools import partial

import pytest

from tests.integration.conftest import hosts_with_our_service, need
from tests.integration.containers import AT_ONCE, SUBNET
from tests.integration.raw_hosts import at_once
from tests.lab.docker_host import DockerHost
from tests.lab.engine import Engine
from tests.lab.etcd import Cluster
from tests.lab.requirements import missing_for_etcd

EACH = 12
NETWORK = ("--ipam-driver=macvlan-twisted", *SUBNET, "--ip-range=192.168.77.128/25")
UNPROBED = ("--ipam-opt=conflict_detection=off",)
Hosts = tuple[DockerHost, ...]


@pytest.fixture
def cluster(two_lasting_engines: tuple[Engine, Engine]) -> Iterator[Cluster]:
    """Run three members of etcd on the router."""
    need(missing_for_etcd())
    with Cluster(two_lasting_engines[0].lan, ("gateway",) * 3) as made:
        yield made


@pytest.fixture
def fleet(
    request: pytest.FixtureRequest, two_lasting_engines: tuple[Engine, Engine], cluster: Cluster
) -> Iterator[Hosts]:
    """Run our service on two hosts that share their addresses."""
    members = ",".join(url.removeprefix("http://") for url in cluster.endpoints)
    with hosts_with_our_service(request, *two_lasting_engines, fleet=f"etcd://{members}") as hosts:
        yield hosts


def names_on(host: DockerHost, count: int) -> list[str]:
    return [f"{host.engine.place}-{number}" for number in range(count)]


def start(host: DockerHost, name: str) -> str:
    return next(iter(host.start(name, AT_ONCE).addresses()))


@pytest.mark.one_engine
def test_hosts_use_different_addresses_without_probing(fleet: Hosts) -> None:
    at_once([partial(host.create, "lan", *NETWORK, *UNPROBED) for host in fleet])
    given = at_once([partial(start, host, name) for host in fleet for name in names_on(host, EACH)])
    assert len(set(given)) == 2 * EACH, f"handed out twice: {sorted(given)}"
