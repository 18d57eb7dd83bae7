"""Addresses are probed before a container needs them, so that it does not wait."""

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial

import pytest

from tests.integration.containers import AT_ONCE, OUR_IPAM, RANGE, address
from tests.integration.raw_hosts import RawHost, at_once, consecutive
from tests.lab.docker_host import DockerHost
from tests.lab.lan import Lan
from tests.lab.plugin import DEFAULTS, Plugin

WAIT = 10
"""Seconds that a service of these tests waits for an answer, where nothing is known yet."""
HALF = "192.168.77.128/25"
HELD = 7
"""Of a range of that size."""
PROBES = "arp[6:2] == 1 and arp[14:4] == 0 and arp[24:4] != 0"
"""Without those for 0.0.0.0: Engine 28.5 announces a new container so for three seconds."""
BURST = 20


@pytest.fixture
def patient(lan: Lan) -> Iterator[RawHost]:
    """Run a service that waits long for answers."""
    with Plugin(lan, arguments=(*DEFAULTS, "--probe-timeout", str(WAIT))) as plugin:
        yield RawHost(plugin)


def test_prefetched_addresses_cost_no_wait(lan: Lan, patient: RawHost) -> None:
    """The first one waits once; those that follow it get what was found out meanwhile, after one last look each."""
    patient.open(HALF)
    addresses = consecutive("192.168.77.128", HELD)
    assert patient.take() == addresses[0]
    with lan.capture("neighbour", PROBES, count=100, seconds=0.1) as capture:
        before = time.monotonic()
        assert [patient.take() for _ in addresses[1:]] == addresses[1:]
        assert time.monotonic() - before < WAIT, "had to wait as if nothing were known"
        asked = "".join(capture.lines())
    assert [asked.count(f"who-has {each} ") for each in addresses[1:]] == [1] * (HELD - 1)


def test_named_prefetched_address_costs_no_wait(patient: RawHost) -> None:
    patient.open(HALF)
    assert patient.take() == "192.168.77.128"
    before = time.monotonic()
    assert patient.take("192.168.77.130") == "192.168.77.130"
    assert time.monotonic() - before < WAIT


def test_restarted_service_prefetches_again(lan: Lan, patient: RawHost) -> None:
    patient.open(HALF)
    assert patient.take() == "192.168.77.128"
    patient.plugin.stop()
    with lan.capture("neighbour", PROBES, count=3 * HELD, seconds=WAIT) as capture:
        patient.plugin.start()
        asked = "".join(capture.lines())
    assert "who-has 192.168.77.129 " in asked
    assert "who-has 192.168.77.128 " not in asked, "is a container's"


def asked_for(lines: Iterable[str]) -> Counter[str]:
    """Return how often each address was probed for."""
    return Counter(found[1] for line in lines if (found := re.search(r"who-has (\S+) ", line)))


@pytest.mark.engines("28.5")
@pytest.mark.plugin_arguments("--probe-timeout", str(WAIT))
def test_containers_find_their_addresses_probed(docker_host: DockerHost) -> None:
    """The network's first ones, those of a second burst of containers, and those after a restart of the service."""
    lan = docker_host.lan
    with lan.capture("neighbour", PROBES, count=3 * HELD, seconds=WAIT + 5) as capture:
        docker_host.create("lan", *OUR_IPAM)
        probed = asked_for(capture)
    assert probed == dict.fromkeys(consecutive("192.168.77.128", HELD), 3)

    second = second_burst_is_probed_ahead(docker_host, BURST)

    docker_host.plugin.stop()
    with lan.capture("neighbour", PROBES, count=3 * HELD, seconds=WAIT + 5) as capture:
        docker_host.plugin.start()
        probed = asked_for(capture)
    assert len(probed) == HELD
    assert not second & set(probed)


@pytest.mark.engines("28.5")
@pytest.mark.plugin_arguments("--probe-timeout", str(WAIT))
def test_addresses_of_dockers_own_ipam_are_predicted(docker_host: DockerHost) -> None:
    docker_host.create("lan", *RANGE)
    second_burst_is_probed_ahead(docker_host, BURST // 2)


def second_burst_is_probed_ahead(docker_host: DockerHost, number: int) -> set[str]:
    """Start so many containers at once, and as many again, which do not wait; return the addresses of the second ones."""
    engine, lan = docker_host.engine, docker_host.lan
    bursts = [[f"{burst}-{each}" for each in range(number)] for burst in ("first", "second")]
    for name in bursts[0] + bursts[1]:
        words = ("--network=lan", f"--name={name}", AT_ONCE, "busybox", "sleep", "600")
        engine.docker("create", *words)
    at_once([partial(engine.docker, "start", name) for name in bursts[0]])
    time.sleep(WAIT + 1)  # as many are probed meanwhile
    with lan.capture("neighbour", PROBES, count=1000, seconds=1) as capture:
        at_once([partial(engine.docker, "start", name) for name in bursts[1]])
        probed = asked_for(capture.lines())
    second = {address(engine, name) for name in bursts[1]}
    assert {each: probed[each] for each in second} == dict.fromkeys(second, 1), "more than the last look"
    return second
