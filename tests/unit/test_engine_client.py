"""Requests to the engine that are cancelled, and the stream of its events."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from typing import Any, ClassVar

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, fail, succeed
from twisted.internet.error import ConnectError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone, ResponseNeverReceived

from macvlan_twisted.engine.client import REQUEST_TIMEOUT, EngineClient
from macvlan_twisted.engine.interfaces import EngineDown, EngineError, EngineEvent, EngineUnavailable


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

    def test_cancelled_request_closes_the_connection_while_it_reads(self) -> None:
        agent = self.client._agent = _StreamingAgent()
        asked = ensureDeferred(self.client.networks())
        agent.body.dataReceived(b"[")
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.assertTrue(agent.transport.disconnecting)
        agent.body.connectionLost(Failure(ResponseDone()))


class _StreamingAgent:
    """Answers with a body that a test writes."""

    def __init__(self, code: int = 200) -> None:
        self.code, self.phrase = code, b""
        self.transport = StringTransport()
        self.asked: list[bytes] = []

    def request(self, method: bytes, uri: bytes, *_: Any) -> Deferred[Any]:
        self.asked.append(uri)
        return succeed(self)

    def deliverBody(self, protocol: Any) -> None:
        self.body = protocol
        protocol.makeConnection(self.transport)
        if self.code != 200:
            protocol.dataReceived(b"no such thing")
            protocol.connectionLost(Failure(ResponseDone()))


class _AnsweringAgent:
    """Answers with JSON, by path."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.answers = {f"http://docker{path}".encode(): json.dumps(each) for path, each in answers.items()}

    def request(self, method: bytes, uri: bytes, *_: Any) -> Deferred[Any]:
        response = _StreamingAgent()
        answer = self.answers[uri].encode()

        def deliver(protocol: Any) -> None:
            protocol.makeConnection(response.transport)
            protocol.dataReceived(answer)
            protocol.connectionLost(Failure(ResponseDone()))

        response.deliverBody = deliver  # type: ignore[method-assign]
        return succeed(response)


class ListTests(SynchronousTestCase):
    """Networks that an engine lists in a swarm."""

    network_id = "90y8l2dpna33qrogijvvwn5fq"
    ipam: ClassVar[Mapping[str, Any]] = {
        "Driver": "macvlan-twisted",
        "Config": [{"Subnet": "192.168.1.0/24"}],
    }
    unknown: ClassVar[Mapping[str, Any]] = {"Driver": "", "Options": None, "Config": []}
    """What a manager lists of a network that its node has no part in, and Engine 20.10 of each network of the swarm."""

    def listed(self, answers: Mapping[str, Any]) -> list[tuple[str, str]]:
        """:return: id and first subnet of each network."""
        reactor = MemoryReactorClock()
        client = EngineClient(reactor, reactor, "unix:///var/run/docker.sock")
        client._agent = _AnsweringAgent(answers)
        networks = self.successResultOf(ensureDeferred(client.networks()))
        return [(each.network_id, str(each.subnets[0])) for each in networks]

    def network(self, ipam: Mapping[str, Any]) -> dict[str, Any]:
        return {"Id": self.network_id, "Name": "lan", "Driver": "macvlan", "Scope": "swarm", "IPAM": ipam}

    def test_network_that_only_holds_a_configuration_is_left_out(self) -> None:
        """No container is ever on it, but it has the subnet and the address management of those that are made from it."""
        config = {"Id": "c" * 64, "Name": "cfg", "Driver": "null", "Scope": "local", "IPAM": self.ipam}
        lists = [{**config, "ConfigOnly": True}, {**self.network(self.ipam), "ConfigOnly": False}]
        self.assertEqual(self.listed({"/networks": lists}), [(self.network_id, "192.168.1.0/24")])

    def test_network_of_a_swarm_is_listed_as_the_node_has_it(self) -> None:
        for here, expected in ((self.ipam, [(self.network_id, "192.168.1.0/24")]), (self.unknown, [])):
            with self.subTest(here=here):
                answers = {
                    "/networks": [self.network(self.unknown)],
                    f"/networks/{self.network_id}": self.network(here),
                }
                self.assertEqual(self.listed(answers), expected)


class EventsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.client = EngineClient(self.reactor, self.reactor, "unix:///var/run/docker.sock")
        self.events: list[EngineEvent] = []

    def follow(self, agent: Any) -> Deferred[Deferred[None]]:
        self.client._agent = agent
        return ensureDeferred(self.client.follow_events(self.events.append))

    def test_each_line_is_an_event(self) -> None:
        agent = _StreamingAgent()
        ended = self.successResultOf(self.follow(agent))
        agent.body.dataReceived(b'{"Type":"container","Action":"create","Actor":{"ID":"c"}}\n{"Type":"netw')
        agent.body.dataReceived(
            b'ork","Action":"connect","Actor":{"ID":"n","Attributes":{"container":"c"}}}\nrubbish\n[]\n'
        )
        self.assertEqual(
            self.events,
            [EngineEvent("container", "create", "c"), EngineEvent("network", "connect", "n", "c")],
        )
        self.assertNoResult(ended)
        agent.body.connectionLost(Failure(ResponseDone()))
        self.successResultOf(ended)

    def test_cancelled_stream_is_closed(self) -> None:
        agent = _StreamingAgent()
        ended = self.successResultOf(self.follow(agent))
        ended.cancel()
        self.failureResultOf(ended, CancelledError)
        self.assertTrue(agent.transport.disconnecting)
        agent.body.connectionLost(Failure(ResponseDone()))

    def test_refused_stream_is_an_engine_error(self) -> None:
        failure = self.failureResultOf(self.follow(_StreamingAgent(403)), EngineError)
        self.assertIn("no such thing", str(failure.value))

    def test_engine_that_never_answers_is_unavailable(self) -> None:
        following = self.follow(_AgentWithoutAnswer())
        self.reactor.advance(REQUEST_TIMEOUT)
        self.failureResultOf(following, EngineUnavailable)

    def test_absent_engine_is_told_from_one_that_may_not_be_asked(self) -> None:
        for number, kind in (
            (errno.ENOENT, EngineDown),
            (errno.ECONNREFUSED, EngineDown),
            (errno.EACCES, EngineUnavailable),
        ):
            agent = _StreamingAgent()
            agent.request = lambda *_, number=number: fail(ConnectError(osError=number))  # type: ignore[method-assign]
            failure = self.failureResultOf(self.follow(agent), EngineUnavailable)
            self.assertIs(type(failure.value), kind)

    def test_cancelled_follower_is_not_taken_for_an_absent_engine(self) -> None:
        following = self.follow(_AgentWithoutAnswer())
        following.cancel()
        self.failureResultOf(following, CancelledError)
