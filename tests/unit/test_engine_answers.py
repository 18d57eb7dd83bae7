"""What an engine answers, or whatever else listens on its socket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as some
from twisted.internet.defer import Deferred, TimeoutError, ensureDeferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.engine.client import REQUEST_TIMEOUT, EngineClient, EngineError

from .helpers import ENDPOINT, NETWORK

NAMES = some.sampled_from(("Id", "Name", "Containers", "EndpointID", "State", "Pid", "IPAM", NETWORK, "x"))
ANYTHING = some.recursive(
    some.none() | some.booleans() | some.integers() | some.sampled_from((NETWORK, ENDPOINT, "")),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)


class Answering(EngineClient):
    """One whose answers are said beforehand."""

    def __init__(self, answer: object) -> None:
        super().__init__(Clock(), "unix:///run/docker.sock")
        self.answer = answer

    async def _request(self, method: bytes, path: str, body: Mapping[str, Any] | None = None) -> Any:
        if path.startswith("/containers/"):
            return self.answer
        return await self.answer if isinstance(self.answer, Deferred) else self.answer


class OddAnswersTests(SynchronousTestCase):
    def outcomes(self, engine: EngineClient) -> list[object]:
        questions = (
            engine.networks(),
            engine.endpoints_of(NETWORK),
            engine.process_of(NETWORK, ENDPOINT),
            engine.has_network("lan"),
            engine.create_network({}),
        )
        found: list[object] = []
        for answer in questions:
            asked: Deferred[Any] = ensureDeferred(answer)
            asked.addBoth(found.append)
        return found

    @given(ANYTHING)
    @example({"Id": NETWORK, "Containers": [1]})
    @example({"Id": NETWORK, "Containers": {"c": {}}})
    @example({"Id": NETWORK, "Containers": {"c": {"EndpointID": ENDPOINT}}, "State": 1})
    @example([{"Name": "lan"}])
    def test_an_answer_that_makes_no_sense_is_a_bug_of_ours(self, answer: object) -> None:
        found = self.outcomes(Answering(answer))
        self.assertEqual(len(found), 5)
        for each in found:
            if isinstance(each, Failure):
                self.assertTrue(each.check(EngineError), each)

    def test_an_engine_that_never_answers_is_waited_for_without_end(self) -> None:
        engine = Answering(Deferred())
        asked: Deferred[Any] = ensureDeferred(engine.has_network("lan"))
        engine._reactor.advance(REQUEST_TIMEOUT)
        self.failureResultOf(asked, TimeoutError)
