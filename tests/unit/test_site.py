"""HTTP as the engine's client speaks it, and as no client should."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from macvlan_twisted.errors import RequestRefused
from macvlan_twisted.protocol.routes import PluginApp
from macvlan_twisted.protocol.site import BODY_LIMIT, PluginSite

from .helpers import events_of
from .site_cases import Connection, SiteTestCase, read_replies, request

PATHS = ("X.Y", "X%2EY")
"""One method twice: as an engine spells it, found in the dictionary, and so that Klein's matcher has to find it."""


class SlowMethod:
    """A method that answers when the test wants it."""

    def __init__(self) -> None:
        self.started: list[bytes] = []
        self.finished = 0
        self.gates: list[Deferred[dict[str, Any]]] = []

    async def __call__(self, raw: bytes) -> dict[str, Any]:
        self.started.append(raw)
        gate: Deferred[dict[str, Any]] = Deferred()
        self.gates.append(gate)
        reply = await gate
        self.finished += 1
        return reply

    def answer(self, reply: dict[str, Any]) -> None:
        gates, self.gates = self.gates, []
        for gate in gates:
            gate.callback(reply)


async def echo(raw: bytes) -> dict[str, Any]:
    return {"body": raw.decode()}


def bodies(connection: Connection) -> list[str]:
    return [each.body["body"] for each in connection.replies]


class HttpTests(SiteTestCase):
    def test_any_spelling_of_path_and_host_is_answered(self) -> None:
        """Without a Content-Type, too."""
        paths = ("Plugin.Activate", "Plugin%2EActivate", "Plugin.Activate?x=1", "%50lugin.Activate?")
        hosts = (b"", b"plugin.moby.localhost", b"%2Frun%2Fdocker%2Fx.sock", b"\x80", b"\xff")
        for path, host in product(paths, hosts):
            connection = self.connect()
            connection.send(request(path, b"").replace(b"Host: ", b"Host: " + host))
            (reply,) = connection.replies
            self.assertEqual(
                (reply.status, reply.body),
                (200, {"Implements": ["NetworkDriver", "IpamDriver"]}),
                (path, host),
            )
            self.assertEqual(reply.headers["content-type"], "application/vnd.docker.plugins.v1.2+json")
            self.assertNotIn("transfer-encoding", reply.headers)

    def test_an_unknown_method_is_404_as_json(self) -> None:
        for path in ("NetworkDriver.Nonsense", "", "x/y", "Plugin.Activate/x"):
            reply = self.post_raw(path, b"{}")
            self.assertEqual(reply.status, 404, path)
            self.assertEqual(set(reply.body), {"Err", "Error"})

    def test_another_verb_is_405_as_json(self) -> None:
        for verb in ("GET", "PUT", "DELETE"):
            connection = self.connect()
            connection.send(request("Plugin.Activate", b"", verb=verb))
            (reply,) = connection.replies
            self.assertEqual((reply.status, set(reply.body)), (405, {"Err", "Error"}))

    def test_an_empty_body_where_one_is_needed_is_an_error(self) -> None:
        self.plugin.create_network()
        before = self.plugin.records.all_rows()
        without = {"Plugin.Activate", "NetworkDriver.GetCapabilities", "IpamDriver.GetCapabilities"}
        without |= {"IpamDriver.GetDefaultAddressSpaces"}
        without |= {"NetworkDriver.DiscoverNew", "NetworkDriver.DiscoverDelete"}
        for method in set(self.app.methods) - without:
            reply = self.post_raw(method, b"")
            self.assertEqual(reply.status, 200)
            self.assertIn("empty body", reply.body["Err"])
        self.assertEqual(self.plugin.records.all_rows(), before)

    def test_a_refusal_is_200_so_that_the_user_reads_our_words_alone(self) -> None:
        async def refuse(raw: bytes) -> dict[str, Any]:
            raise RequestRefused("say é")

        self.serve_methods({"X.Y": refuse})
        for path in PATHS:
            reply = self.post_raw(path, b"")
            self.assertEqual((reply.status, reply.body), (200, dict.fromkeys(("Err", "Error"), "say é")))

    def test_a_bug_is_500_with_its_name_and_a_traceback_in_the_log(self) -> None:
        async def stumble(raw: bytes) -> dict[str, Any]:
            raise ZeroDivisionError("a test's own")

        self.serve_methods({"X.Y": stumble})
        for path in PATHS:
            reply = self.post_raw(path, b"")
            self.assertEqual(reply.status, 500)
            self.assertIn("X.Y: bug in the plugin, ZeroDivisionError", reply.body["Err"])
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class SlowTestCase(SiteTestCase):
    """A method that waits, X.Y, and one that does not."""

    def setUp(self) -> None:
        super().setUp()
        self.slow = SlowMethod()
        self.serve_methods({"Echo": echo, "X.Y": self.slow})


class SequenceTests(SlowTestCase):
    """Several requests on one connection."""

    @given(
        st.lists(st.tuples(st.sampled_from(("Echo", "%45cho")), st.text(max_size=20)), max_size=3), st.data()
    )
    def test_requests_are_answered_however_they_are_cut_into_reads(
        self, requests: list[tuple[str, str]], data: st.DataObject
    ) -> None:
        connection = self.connect()
        unsent = b"".join(request(path, text.encode()) for path, text in requests)
        while unsent:
            length = data.draw(st.integers(1, len(unsent)))
            connection.send(unsent[:length])
            unsent = unsent[length:]
        self.assertEqual(bodies(connection), [text for _, text in requests])

    def test_pipelined_requests_are_answered_one_after_the_other(self) -> None:
        connection = self.connect()
        connection.send(request("X.Y", b"") + request("X.Y", b"") + request("%45cho", b"third"))
        self.assertEqual(len(self.slow.gates), 1)
        self.slow.answer({"body": "first"})
        self.assertEqual(len(self.slow.gates), 1)
        self.slow.answer({"body": "second"})
        self.assertEqual(bodies(connection), ["first", "second", "third"])

    def test_a_client_that_does_not_read_replies_is_paused(self) -> None:
        connection = self.connect()
        connection.send(request("X.Y", b""))
        sent = 0
        for _ in range(20):
            while connection.transport.producerState == "producing" and sent < 1 << 22:
                connection.send(request("X.Y", b"") * 300)
                sent += 300 * len(request("X.Y", b""))
            self.slow.answer({})
        self.assertLess(sent, 1 << 18)

    def test_no_pipelined_request_starts_after_a_hang_up(self) -> None:
        connection = self.connect()
        connection.send(request("X.Y", b"") + request("X.Y", b""))
        connection.hang_up()
        self.slow.answer({})
        self.assertEqual((self.slow.gates, connection.raw), ([], b""))
        self.successResultOf(self.app.none_under_way())

    def test_expect_100_continue_is_answered_first(self) -> None:
        connection = self.connect()
        head, _, body = request("Echo", b"x").partition(b"\r\n\r\n")
        connection.send(head + b"\r\nExpect: 100-continue\r\n\r\n" + body)
        first, _, reply = connection.raw.partition(b"\r\n\r\n")
        self.assertEqual(first, b"HTTP/1.1 100 Continue")
        self.assertEqual([each.body for each in read_replies(reply)], [{"body": "x"}])

    def test_http_1_0_is_answered_and_its_connection_closed(self) -> None:
        connection = self.connect()
        connection.send(request("Echo", b"x").replace(b"HTTP/1.1", b"HTTP/1.0"))
        self.assertEqual(bodies(connection), ["x"])
        self.assertFalse(connection.is_open)

    def test_a_reply_that_cannot_be_written_ends_call_and_connection(self) -> None:
        class Broken(StringTransport):
            def write(self, data: bytes) -> None:
                raise OSError("a test has it fail")

        connection = Connection(self.site, Broken)
        connection.send(request("Echo", b"x"))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertFalse(connection.is_open)
        self.successResultOf(self.app.none_under_way())


class LimitTests(SiteTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.seen: list[int] = []

        async def count(raw: bytes) -> dict[str, Any]:
            self.seen.append(len(raw))
            return {}

        self.serve_methods({"X.Y": count})

    def test_a_body_of_exactly_the_limit_is_read(self) -> None:
        connection = self.connect()
        connection.send(request("X.Y", b" " * BODY_LIMIT))
        self.assertEqual(([each.status for each in connection.replies], self.seen), ([200], [BODY_LIMIT]))

    def test_one_byte_more_is_413_once_and_reaches_no_method(self) -> None:
        whole = request("X.Y", b" " * (BODY_LIMIT + 1))
        for pieces in ([whole], [whole[:400]], [whole[:500], whole[500:]], [whole[:-1], whole[-1:]]):
            connection = self.connect()
            for piece in pieces:
                if connection.is_open:
                    connection.send(piece)
            self.assertEqual([each.status for each in connection.replies], [413])
            self.assertIn(str(BODY_LIMIT), connection.replies[0].body["Err"])
            self.assertFalse(connection.is_open)
        self.assertEqual(self.seen, [])

    def test_a_chunked_body_without_end_is_refused_at_the_limit(self) -> None:
        connection = self.connect()
        connection.send(b"POST /X.Y HTTP/1.1\r\nHost: \r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        for _ in range(BODY_LIMIT // 0x10000 + 3):
            if connection.is_open:
                connection.send(chunk)
        self.assertEqual(([each.status for each in connection.replies], self.seen), ([413], []))
        self.assertFalse(connection.is_open)

    def test_a_refused_body_that_ends_in_the_same_read_reaches_no_method(self) -> None:
        connection = self.connect()
        connection.send(
            b"POST /X.Y HTTP/1.1\r\nHost: \r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"
            + b"%x\r\n" % BODY_LIMIT
            + b" " * BODY_LIMIT
            + b"\r\n0\r\n\r\n"
        )
        self.assertEqual(([each.status for each in connection.replies], self.seen), ([413], []))
        self.assertFalse(connection.is_open)


class HangUpTests(SlowTestCase):
    def test_a_started_call_goes_on_when_the_client_hangs_up(self) -> None:
        for finished, path in enumerate(PATHS):
            connection = self.connect()
            connection.send(request(path, b"{}"))
            connection.hang_up()
            self.assertEqual((len(self.slow.started), self.slow.finished), (finished + 1, finished))
            done = self.app.none_under_way()
            self.assertNoResult(done)
            self.slow.answer({})
            self.assertEqual(self.slow.finished, finished + 1)
            self.successResultOf(done)
            self.assertEqual((connection.raw, self.flushLoggedErrors()), (b"", []))

    def test_a_refusal_after_a_hang_up_ends_the_call(self) -> None:
        for path in PATHS:
            connection = self.connect()
            connection.send(request(path, b"{}"))
            connection.hang_up()
            self.slow.gates.pop().errback(RequestRefused("a test's own"))
            self.successResultOf(self.app.none_under_way())
            self.assertEqual(self.flushLoggedErrors(), [])

    def test_an_incomplete_request_starts_nothing(self) -> None:
        connection = self.connect()
        connection.send(request("X.Y", b"{}")[:-1])
        connection.hang_up()
        self.assertEqual(self.slow.started, [])


class HalfCloseTests(SlowTestCase):
    def test_client_that_sends_no_more_gets_its_answer(self) -> None:
        for path in PATHS:
            connection = self.connect()
            connection.send(request(path, b"{}"))
            connection.half_close()
            self.assertTrue(connection.is_open)
            self.slow.answer({"answered": path})
            self.assertEqual([each.body for each in connection.replies], [{"answered": path}])
            self.assertFalse(connection.is_open)

    def test_all_requests_of_such_a_client_are_answered(self) -> None:
        connection = self.connect()
        connection.send(request("X.Y", b"1") + request("X.Y", b"2") + request("X.Y", b"3")[:-1])
        connection.half_close()
        self.slow.answer({"answered": 1})
        self.assertTrue(connection.is_open)
        self.slow.answer({"answered": 2})
        self.assertEqual([each.body["answered"] for each in connection.replies], [1, 2])
        self.assertFalse(connection.is_open)

    def test_idle_or_incomplete_connection_is_closed(self) -> None:
        for sent in (b"", request("X.Y", b"{}")[:-1], b"POST"):
            connection = self.connect()
            connection.send(sent)
            connection.half_close()
            self.assertFalse(connection.is_open)
        self.assertEqual(self.slow.started, [])


class ClosingTests(SlowTestCase):
    def test_closing_waits_for_started_calls_and_answers_them(self) -> None:
        for path in PATHS:
            connections = [self.connect() for _ in range(3)]
            for connection in connections:
                connection.send(request(path, b"{}"))
            connections[2].hang_up()
            done = self.app.none_under_way()
            self.assertNoResult(done)
            self.app.closing = True
            self.slow.answer({"a": 1})
            self.successResultOf(done)
            for connection in connections[:2]:
                (reply,) = connection.replies
                self.assertEqual((reply.status, reply.body), (200, {"a": 1}))
                self.assertEqual(reply.headers["connection"].lower(), "close")
            self.site.close_connections()
            self.assertEqual([each.is_open for each in connections], [False] * 3)
            for connection in connections[:2]:
                connection.hang_up()
        self.assertEqual((self.slow.finished, self.app.answered), (6, 6))

    def test_only_replies_while_closing_ask_to_close_the_connection(self) -> None:
        for path in (*PATHS, "X.Unknown"):
            for closing in (False, True):
                self.app.closing = closing
                connection = self.connect()
                connection.send(request(path, b"{}"))
                self.slow.answer({})
                (reply,) = connection.replies
                self.assertEqual(reply.headers.get("connection"), "close" if closing else None)

    def test_a_failed_call_is_no_longer_under_way(self) -> None:
        self.connect().send(request("X.Y", b"{}"))
        done = self.app.none_under_way()
        self.slow.gates[0].errback(RequestRefused("a test's own"))
        self.successResultOf(done)


class IdleTests(SynchronousTestCase):
    def test_an_idle_site_has_no_timer(self) -> None:
        clock = Clock()
        site = PluginSite(Resource(), clock)
        site.doStart()
        self.addCleanup(site.doStop)
        connection = Connection(site)
        self.assertEqual(clock.getDelayedCalls(), [])
        connection.hang_up()


class StuckCallTests(SiteTestCase):
    """The kernel or the disk does not come back, or another call has the lock."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.gate: Deferred[None] = Deferred()

        async def stuck(raw: bytes) -> dict[str, Any]:
            await self.gate
            self.finished = True
            return {"Late": True}

        async def quick(raw: bytes) -> dict[str, Any]:
            return {"Quick": True}

        self.finished = False
        methods = {"X.Stuck": stuck, "X.Quick": quick}
        self.app = PluginApp(methods, False, self.clock.seconds, self.clock.callLater, 60.0)
        self.site = PluginSite(self.app.resource())

    def test_call_is_answered_in_time_and_goes_on(self) -> None:
        first, second = self.connect(), self.connect()
        first.send(request("X.Stuck", b""))
        self.clock.advance(30)
        second.send(request("X.Stuck", b""))
        self.clock.advance(29)
        self.assertEqual(first.replies, [])
        self.clock.advance(1)
        (reply,) = first.replies
        self.assertEqual(reply.status, 200)
        self.assertIn("has not answered for 60 s", reply.body["Err"])
        self.assertEqual(second.replies, [])
        self.clock.advance(30)
        self.assertEqual(len(second.replies), 1)
        self.assertEqual((self.app.under_way(), self.app.longest_wait()), (["X.Stuck", "X.Stuck"], 90.0))
        first.send(request("X.Quick", b""))
        self.assertEqual(first.replies[1].body, {"Quick": True})
        self.gate.callback(None)
        self.assertTrue(self.finished)
        self.assertEqual((self.app.under_way(), len(first.replies), len(second.replies)), ([], 2, 1))

    def test_no_timer_is_left_in_the_end(self) -> None:
        connection = self.connect()
        connection.send(request("X.Quick", b"") + request("X.Stuck", b""))
        ended = self.app.none_under_way()
        connection.hang_up()
        self.gate.callback(None)
        self.successResultOf(ended)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_hang_up_before_the_answer_is_no_error(self) -> None:
        connection = self.connect()
        connection.send(request("X.Stuck", b""))
        connection.hang_up()
        self.clock.advance(60)
        self.gate.callback(None)
        self.successResultOf(self.app.none_under_way())
        self.assertEqual(self.flushLoggedErrors(), [])


class DebugTests(SiteTestCase):
    def test_every_call_is_logged_with_its_duration(self) -> None:
        events = events_of(self)
        clock = iter((10.0, 10.025))

        async def answer(raw: bytes) -> dict[str, Any]:
            return json.loads(raw) or {}

        self.app = PluginApp({"X.Y": answer}, debug=True, now=lambda: next(clock))
        self.site = PluginSite(self.app.resource())
        self.assertEqual(self.post("X.Y"), {})
        (event,) = [each for each in events if each.get("method") == "X.Y"]
        self.assertAlmostEqual(event["milliseconds"], 25.0)
        self.assertEqual(event["log_level"].name, "debug")
