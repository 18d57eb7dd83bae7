"""Addresses are probed before a container needs them, so that it does not wait."""

import time
from collections.abc import Iterator

import pytest

from tests.integration.raw_hosts import RawHost, consecutive
from tests.lab.lan import Lan
from tests.lab.plugin import DEFAULTS, Plugin

WAIT = 10
"""Seconds that a service of these tests waits for an answer, where nothing is known yet."""
HALF = "192.168.77.128/25"
HELD = 7
"""Of a range of that size."""
PROBES = "arp[6:2] == 1 and arp[14:4] == 0"


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
