"""HTTP as the engine's client speaks it."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from macvlan_twisted.errors import RequestRefused
from macvlan_twisted.protocol.calls import Calls
from macvlan_twisted.protocol.site import PluginSite
from macvlan_twisted.protocol.strict_http import BODY_LIMIT

from .site_cases import SiteTestCase, request


class SlowMethod:
    """A call that is answered when the test says so."""

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


class HttpTests(SiteTestCase):
    def test_a_blank_or_any_host_and_no_content_type_are_fine(self) -> None:
        for host in ("Host: ", "Host: plugin.moby.localhost", "Host: %2Frun%2Fdocker%2Fx.sock"):
            connection = self.connect()
            connection.send(request("Plugin.Activate", b"", host=host))
            self.assertEqual([each.status for each in connection.replies], [200])

    def test_a_connection_is_kept_for_the_next_call(self) -> None:
        connection = self.connect()
        for number in (1, 2, 3):
            connection.send(request("Plugin.Activate", b""))
            self.assertEqual([each.status for each in connection.replies], [200] * number)
            self.assertTrue(connection.is_open)

    def test_bytes_may_come_one_by_one(self) -> None:
        connection = self.connect()
        for byte in request("NetworkDriver.DeleteNetwork", b'{"NetworkID":"a"}\n'):
            connection.send(bytes([byte]))
        self.assertEqual([each.body for each in connection.replies], [{}])

    def test_replies_are_json_with_their_length_and_not_chunked(self) -> None:
        connection = self.connect()
        connection.send(request("Plugin.Activate", b""))
        (reply,) = connection.replies
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

    def test_an_empty_body_is_an_error_where_one_is_needed_and_changes_nothing(self) -> None:
        self.plugin.create_network()
        before = self.plugin.records.all_rows()
        without = {"Plugin.Activate", "NetworkDriver.GetCapabilities", "IpamDriver.GetCapabilities"}
        without |= {"IpamDriver.GetDefaultAddressSpaces"}
        without |= {"NetworkDriver.DiscoverNew", "NetworkDriver.DiscoverDelete"}
        for method in set(vars(self.calls)["_methods"]) - without:
            reply = self.post_raw(method, b"")
            self.assertEqual(reply.status, 200)
            self.assertIn("empty body", reply.body["Err"])
        self.assertEqual(self.plugin.records.all_rows(), before)

    def test_a_path_that_is_spelt_otherwise_is_the_same_call(self) -> None:
        for path in ("Plugin%2EActivate", "Plugin.Activate?x=1", "%50lugin.Activate?"):
            connection = self.connect()
            connection.send(request(path, b""))
            (reply,) = connection.replies
            self.assertEqual(
                (reply.status, reply.body), (200, {"Implements": ["NetworkDriver", "IpamDriver"]})
            )

    def test_an_error_of_ours_is_200_so_that_the_user_reads_our_words_alone(self) -> None:
        async def refuse(raw: bytes) -> dict[str, Any]:
            raise RequestRefused("say é")

        self.serve_methods({"X.Y": refuse})
        reply = self.post_raw("X.Y", b"")
        self.assertEqual((reply.status, reply.body), (200, dict.fromkeys(("Err", "Error"), "say é")))

    def test_a_bug_is_500_with_its_name_and_a_traceback_in_the_log(self) -> None:
        async def stumble(raw: bytes) -> dict[str, Any]:
            raise ZeroDivisionError("a test's own")

        self.serve_methods({"X.Y": stumble})
        reply = self.post_raw("X.Y", b"")
        self.assertEqual(reply.status, 500)
        self.assertIn("X.Y: bug in the plugin, ZeroDivisionError", reply.body["Err"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class LimitTests(SiteTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.seen: list[int] = []

        async def count(raw: bytes) -> dict[str, Any]:
            self.seen.append(len(raw))
            return {}

        self.serve_methods({"X.Y": count})

    def test_a_body_of_the_limit_is_read(self) -> None:
        connection = self.connect()
        connection.send(request("X.Y", b" " * BODY_LIMIT))
        self.assertEqual(([each.status for each in connection.replies], self.seen), ([200], [BODY_LIMIT]))

    def test_one_byte_more_is_refused_once_with_413_and_never_handed_on(self) -> None:
        whole = request("X.Y", b" " * (BODY_LIMIT + 1))
        for pieces in ([whole], [whole[:500], whole[500:]], [whole[:-1], whole[-1:]]):
            connection = self.connect()
            for piece in pieces:
                if connection.is_open:
                    connection.send(piece)
            self.assertEqual([each.status for each in connection.replies], [413])
            self.assertIn(str(BODY_LIMIT), connection.replies[0].body["Err"])
            self.assertFalse(connection.is_open)
        self.assertEqual(self.seen, [])

    def test_it_is_refused_before_the_body_has_come(self) -> None:
        connection = self.connect()
        connection.send(request("X.Y", b" " * (BODY_LIMIT + 1))[:400])
        self.assertEqual([each.status for each in connection.replies], [413])

    def test_a_body_without_an_end_is_refused_too(self) -> None:
        connection = self.connect()
        connection.send(b"POST /X.Y HTTP/1.1\r\nHost: \r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        for _ in range(BODY_LIMIT // 0x10000 + 3):
            if connection.is_open:
                connection.send(chunk)
        self.assertEqual(([each.status for each in connection.replies], self.seen), ([413], []))
        self.assertFalse(connection.is_open)

    def test_a_body_that_was_refused_is_handed_on_when_its_end_came_with_it(self) -> None:
        connection = self.connect()
        connection.send(
            b"POST /X.Y HTTP/1.1\r\nHost: \r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"
            + b"%x\r\n" % BODY_LIMIT
            + b" " * BODY_LIMIT
            + b"\r\n0\r\n\r\n"
        )
        self.assertEqual(([each.status for each in connection.replies], self.seen), ([413], []))
        self.assertFalse(connection.is_open)


class HangUpTests(SiteTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.slow = SlowMethod()
        self.serve_methods({"X.Y": self.slow})

    def test_a_client_that_hangs_up_does_not_stop_what_has_started(self) -> None:
        for finished, path in enumerate(("X.Y", "X%2EY")):  # the second is klein's to find, who cancels
            connection = self.connect()
            connection.send(request(path, b"{}"))
            connection.hang_up()
            self.assertEqual((len(self.slow.started), self.slow.finished), (finished + 1, finished))
            self.slow.answer({})
            self.assertEqual(self.slow.finished, finished + 1)
            self.assertEqual(connection.raw, b"")

    def test_it_is_no_error_and_no_line_in_the_log(self) -> None:
        for path in ("X.Y", "X%2EY"):
            connection = self.connect()
            connection.send(request(path, b"{}"))
            connection.hang_up()
            self.slow.answer({})
            self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_client_that_hangs_up_within_its_request_starts_nothing(self) -> None:
        connection = self.connect()
        connection.send(request("X.Y", b"{}")[:-1])
        connection.hang_up()
        self.assertEqual(self.slow.started, [])


class ClosingTests(SiteTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.slow = SlowMethod()
        self.serve_methods({"X.Y": self.slow})

    def test_closing_waits_for_what_has_started_and_answers_it(self) -> None:
        connections = [self.connect() for _ in range(3)]
        for connection in connections:
            connection.send(request("X.Y", b"{}"))
        connections[2].hang_up()
        done = self.calls.none_under_way()
        self.assertNoResult(done)
        self.calls.closing = True
        self.slow.answer({"a": 1})
        self.successResultOf(done)
        self.assertEqual(self.slow.finished, 3)
        for connection in connections[:2]:
            (reply,) = connection.replies
            self.assertEqual((reply.status, reply.body), (200, {"a": 1}))
            self.assertEqual(reply.headers["connection"].lower(), "close")
        self.site.close_connections()
        self.assertEqual([each.is_open for each in connections], [False] * 3)

    def test_with_nothing_under_way_there_is_nothing_to_wait_for(self) -> None:
        self.connect().send(request("X.Y", b"{}"))
        self.slow.answer({})
        self.successResultOf(self.calls.none_under_way())

    def test_a_failed_call_is_not_under_way_any_more(self) -> None:
        self.connect().send(request("X.Y", b"{}"))
        done = self.calls.none_under_way()
        self.slow.gates[0].errback(RequestRefused("a test's own"))
        self.successResultOf(done)


class IdleTests(SynchronousTestCase):
    def test_a_site_that_nobody_asks_wakes_up_each_second(self) -> None:
        clock = Clock()
        site = PluginSite(Resource(), {}, clock)
        site.doStart()
        self.addCleanup(site.doStop)
        self.assertEqual(clock.getDelayedCalls(), [])


class DebugTests(SiteTestCase):
    def test_every_call_is_logged_with_its_duration(self) -> None:
        events: list[Any] = []
        observe: Any = events.append
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        clock = iter((10.0, 10.025))

        async def answer(raw: bytes) -> dict[str, Any]:
            return json.loads(raw) or {}

        self.calls = Calls({"X.Y": answer}, debug=True, now=lambda: next(clock))
        self.site = PluginSite(self.calls.resource(), self.calls.by_path())
        self.assertEqual(self.post("X.Y"), {})
        (event,) = [each for each in events if each.get("method") == "X.Y"]
        self.assertAlmostEqual(event["milliseconds"], 25.0)
        self.assertEqual(event["log_level"].name, "debug")


class OddHttpTests(HttpTests):
    is_odd = True


class OddLimitTests(LimitTests):
    is_odd = True


class OddHangUpTests(HangUpTests):
    is_odd = True


class OddClosingTests(ClosingTests):
    is_odd = True
