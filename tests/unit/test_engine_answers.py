"""Unexpected answers of an engine, or of another program on its socket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as some
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.engine.client import CREATION_TIMEOUT, REQUEST_TIMEOUT, EngineClient
from macvlan_twisted.engine.interfaces import EngineError, EngineUnavailable

from .helpers import ENDPOINT, NETWORK

NAMES = some.sampled_from(("Id", "Name", "Containers", "EndpointID", "State", "Pid", "IPAM", NETWORK, "x"))
ANYTHING = some.recursive(
    some.none() | some.booleans() | some.integers() | some.sampled_from((NETWORK, ENDPOINT, "")),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)


class ScriptedClient(EngineClient):
    """Answers every request with a prepared value."""

    def __init__(self, answer: object) -> None:
        self.clock = Clock()
        super().__init__(None, self.clock, "unix:///run/docker.sock")
        self.answer = answer

    async def _send(self, method: bytes, path: str, body: Mapping[str, Any] | None) -> Any:
        if path.startswith("/containers/"):
            return self.answer
        return await self.answer if isinstance(self.answer, Deferred) else self.answer


class UnexpectedAnswerTests(SynchronousTestCase):
    def outcomes(self, engine: ScriptedClient) -> list[object]:
        requests = (
            engine.networks(),
            engine.endpoints_of(NETWORK),
            engine.process_of(NETWORK, ENDPOINT),
            engine.containers(),
            engine.has_network("lan"),
            engine.create_network({}),
        )
        results: list[object] = []
        for answer in requests:
            result: Deferred[Any] = ensureDeferred(answer)
            result.addBoth(results.append)
        return results

    @given(ANYTHING)
    @example({"Id": NETWORK, "Containers": [1]})
    @example({"Id": NETWORK, "Containers": {"c": {}}})
    @example({"Id": NETWORK, "Containers": {"c": {"EndpointID": ENDPOINT}}, "State": 1})
    @example([{"Name": "lan"}])
    @example(
        [{"Id": NETWORK, "NetworkSettings": {"Networks": {"lan": {"IPAMConfig": {"IPv4Address": "x"}}}}}]
    )
    @example([{"Id": NETWORK, "NetworkSettings": {"Networks": {"lan": None}}}])
    def test_an_unexpected_answer_is_an_engine_error(self, answer: object) -> None:
        results = self.outcomes(ScriptedClient(answer))
        self.assertEqual(len(results), 6)
        for each in results:
            if isinstance(each, Failure):
                self.assertTrue(each.check(EngineError), each)

    def test_a_request_without_an_answer_times_out(self) -> None:
        for ask, timeout in (
            (lambda engine: engine.has_network("lan"), REQUEST_TIMEOUT),
            (lambda engine: engine.create_network({}), CREATION_TIMEOUT),
        ):
            engine = ScriptedClient(Deferred())
            result: Deferred[Any] = ensureDeferred(ask(engine))
            engine.clock.advance(timeout - 1)
            self.assertNoResult(result)
            engine.clock.advance(1)
            self.failureResultOf(result, EngineUnavailable)
