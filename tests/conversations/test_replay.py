"""Every recorded conversation of both engines, replayed with our service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .recording import Recording, all_recordings, load
from .refusals import refusals_of
from .replay import Replay
from .service_under_test import ServiceUnderTest, link_of_endpoint
from .wire import request_bytes

RECORDINGS = [load(path) for path in all_recordings()]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceUnderTest]:
    service = ServiceUnderTest(tmp_path)
    yield service
    service.kill()


@pytest.mark.parametrize("recording", RECORDINGS, ids=str)
def test_recorded_conversations_replay_and_leave_nothing(
    recording: Recording, service: ServiceUnderTest
) -> None:
    outcome = Replay(recording, service).run()
    service.stop()
    links = {endpoint: link_of_endpoint(endpoint) for endpoint in outcome.ledger.endpoints}
    complaints = outcome.complaints + outcome.ledger.complaints_about(service.leftovers(), links)
    complaints += service.errors_in_log()
    assert not complaints, "\n".join(complaints)
    assert outcome.refusals == refusals_of(recording)
    assert outcome.sent + len(outcome.withheld) == len(recording.calls)


def test_both_engines_were_recorded_in_the_same_situations() -> None:
    by_engine: dict[str, set[str]] = {}
    for recording in RECORDINGS:
        by_engine.setdefault(recording.engine, set()).add(recording.name)
    assert len(by_engine) == 2
    assert len(set(map(frozenset, by_engine.values()))) == 1


@pytest.mark.parametrize("recording", [each for each in RECORDINGS if each.name == "raw-http"], ids=str)
def test_replayed_requests_equal_dockerds_bytes(recording: Recording) -> None:
    assert recording.calls
    for call in recording.calls:
        assert call.raw is not None
        assert request_bytes(call.method, call.headers, call.body_text) == call.raw.encode()
