"""Requests to the engine that are cancelled."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseNeverReceived

from macvlan_twisted.engine.client import EngineClient


class _AgentWithoutAnswer:
    """Reports an aborted request as Twisted's does."""

    def request(self, *_: Any) -> Deferred[Any]:
        return Deferred(lambda result: result.errback(ResponseNeverReceived([Failure(CancelledError())])))


class CancelledRequestTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.client = EngineClient(self.reactor, self.reactor, "unix:///var/run/docker.sock")
        self.client._agent = _AgentWithoutAnswer()

    def test_cancelled_request_is_not_taken_for_an_absent_engine(self) -> None:
        for ask in (self.client.networks(), self.client.create_network({})):
            asked = ensureDeferred(ask)
            asked.cancel()
            self.failureResultOf(asked, CancelledError)
