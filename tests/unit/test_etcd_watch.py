"""The stream of changes: what is reported, what happens when it breaks."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.fleet.etcd_gateway import EtcdGateway
from macvlan_twisted.fleet.etcd_members import EtcdMembers
from macvlan_twisted.fleet.etcd_values import (
    EtcdRefused,
    EtcdUnavailable,
    Event,
    Header,
    KeyValue,
    Refusal,
    encode,
)
from macvlan_twisted.fleet.etcd_watch import CHECK_INTERVAL, LONGEST_WAIT, PATIENCE, SHORTEST_WAIT

from .etcd_cases import HEADER, MEMBERS, A, B, C, FakeEtcd, Json, Response, answer, refused, silence

CREATED = {"result": {"header": HEADER, "created": True}}


def changes(revision: int, *events: Json) -> Json:
    return {"result": {"header": {**HEADER, "revision": str(revision)}, "events": list(events)}}


def written(key: str, revision: int) -> Json:
    return {"kv": {"key": encode(key.encode()), "value": encode(b"v"), "mod_revision": str(revision)}}


def error(code: int, message: str) -> bytes:
    return b'{"error":{"code":%d,"message":"%s"}}' % (code, message.encode())


class WatchCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.etcd = FakeEtcd()
        self.streams: list[Response] = []
        self.etcd.behaviours = dict.fromkeys(MEMBERS, self.behave)
        self.gateway = EtcdGateway(
            EtcdMembers(MEMBERS, self.etcd, self.clock), None, self.clock, Random(1), None
        )
        self.events: list[Event] = []
        self.connections: list[str] = []

    def tearDown(self) -> None:
        self.successResultOf(ensureDeferred(self.gateway.stop()))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def behave(self, path: str, body: Json) -> Response | Deferred[Any]:
        if path != "/v3/watch":
            return answer()
        self.streams.append(Response())
        return self.streams[-1]

    def watch(self, revision: int = 5, cluster_id: int = 7) -> Deferred[None]:
        def on_events(events: Sequence[Event]) -> None:
            self.events += events

        watching = ensureDeferred(
            self.gateway.watch("/p/", Header(cluster_id, revision), on_events, self.connections.append)
        )
        watching.addErrback(self._keep)
        return watching

    def _keep(self, failure: Any) -> Any:
        return failure

    def watched(self) -> list[tuple[str, int]]:
        """The members that were asked for a watch since the last time, and the revisions."""
        asked = [
            (member, int(body["create_request"]["start_revision"]))
            for (member, path), body in zip(self.etcd.asked, self.etcd.bodies, strict=True)
            if path == "/v3/watch"
        ]
        self.etcd.asked, self.etcd.bodies = [], []
        return asked

    def refusal_of(self, watching: Deferred[None]) -> EtcdRefused:
        refused = self.failureResultOf(watching, EtcdRefused).value
        assert isinstance(refused, EtcdRefused)
        return refused

    def end(self, watching: Deferred[None]) -> None:
        watching.cancel()
        self.failureResultOf(watching, CancelledError)


class EventsTests(WatchCase):
    def test_changes_after_the_known_revision_are_reported(self) -> None:
        watching = self.watch()
        self.assertEqual(self.watched(), [(A, 6)])
        deleted = {"type": "DELETE", "kv": {"key": encode(b"/p/b"), "mod_revision": "8"}}
        self.streams[0].write(CREATED)
        self.assertEqual(self.connections, [""])
        self.streams[0].write(changes(6, written("/p/a", 6)), changes(8, deleted))
        self.assertEqual(
            self.events,
            [
                Event(KeyValue("/p/a", b"v", mod_revision=6)),
                Event(KeyValue("/p/b", b"", mod_revision=8), is_deletion=True),
            ],
        )
        self.end(watching)
        self.assertTrue(self.streams[0].transport.disconnecting)

    def test_error_in_the_callers_code_ends_the_watch(self) -> None:
        def fail(_: Sequence[Event]) -> None:
            raise ZeroDivisionError

        watching = ensureDeferred(self.gateway.watch("/p/", Header(7, 5), fail))
        self.streams[0].write(CREATED, changes(6, written("/p/a", 6)))
        self.failureResultOf(watching, ZeroDivisionError)

    def test_stopped_client_ends_the_watch(self) -> None:
        watching = self.watch()
        self.streams[0].write(CREATED)
        self.successResultOf(ensureDeferred(self.gateway.stop()))
        self.failureResultOf(watching, EtcdUnavailable)
        self.assertTrue(self.streams[0].transport.disconnecting)


class InterruptionTests(WatchCase):
    def test_watch_goes_on_at_another_member_without_a_gap(self) -> None:
        endings = {
            "closed": lambda stream: stream.end(),
            "half an object": lambda stream: stream.end(b'{"result":'),
            "no leader": lambda stream: stream.end(error(14, "etcdserver: no leader")),
            "stopped": lambda stream: stream.end(error(14, "error reading from server: EOF") + b"\n"),
            "not JSON": lambda stream: stream.body.dataReceived(b"<html>\n"),
        }
        for name, end in endings.items():
            with self.subTest(ending=name):
                self.setUp()
                watching = self.watch()
                self.streams[0].write(CREATED, changes(9, written("/p/a", 9)))
                self.watched()
                end(self.streams[0])
                self.assertEqual(self.watched(), [], "it waits")
                self.clock.advance(0.5)
                self.assertEqual(self.watched(), [(B, 10)])
                self.streams[1].write({"result": {"header": {**HEADER, "revision": "9"}, "created": True}})
                self.assertEqual(len(self.connections), 3)
                self.assertTrue(self.connections[1].startswith(A))
                self.end(watching)

    def test_silent_member_is_left(self) -> None:
        watching = self.watch()
        self.streams[0].write(CREATED)
        for _ in range(3):
            self.clock.advance(CHECK_INTERVAL)
        self.assertEqual(self.watched(), [(A, 6)])
        self.etcd.behaviours[A] = lambda *_: silence()
        self.clock.advance(CHECK_INTERVAL)
        self.clock.advance(PATIENCE)
        self.assertTrue(self.streams[0].transport.disconnecting)
        self.clock.advance(0.5)
        self.assertEqual(self.watched(), [(B, 6)])
        self.end(watching)

    def test_member_that_begins_no_stream_is_left(self) -> None:
        self.etcd.behaviours[A] = lambda *_: silence()
        watching = self.watch()
        self.clock.advance(PATIENCE)
        self.clock.advance(0.5)
        self.assertEqual(self.watched(), [(A, 6), (B, 6)])
        self.end(watching)

    def test_attempts_become_rare(self) -> None:
        self.etcd.behaviours = dict.fromkeys(MEMBERS, lambda *_: refused())
        watching = self.watch()
        counts = []
        for _ in range(4):
            for _ in range(600):
                self.clock.advance(0.1)
            counts.append(len(self.watched()))
        self.assertLess(counts[0], 30)
        for count in counts[1:]:
            self.assertGreater(count, 60 / LONGEST_WAIT)
            self.assertLess(count, 30)
        self.end(watching)

    def test_stream_that_always_breaks_is_no_busy_loop(self) -> None:
        watching = self.watch()
        for _ in range(600):
            if self.streams:
                stream = self.streams.pop()
                stream.write(CREATED)
                stream.end()
            self.clock.advance(0.1)
        self.assertLess(len(self.watched()), 30)
        self.end(watching)

    def test_hosts_do_not_come_back_together(self) -> None:
        waits = set()
        for seed in range(20):
            from macvlan_twisted.fleet.etcd_watch import EtcdWatch

            watch = EtcdWatch(None, None, self.clock, Random(seed))  # type: ignore[arg-type]
            waits.add(next(watch._waits()))
        self.assertEqual(len(waits), 20)
        self.assertGreaterEqual(min(waits), SHORTEST_WAIT)


class LostHistoryTests(WatchCase):
    def test_compacted_revision_is_reported(self) -> None:
        watching = self.watch()
        cancelled = {"result": {"header": {"cluster_id": "7"}, "canceled": True, "compact_revision": "17"}}
        self.streams[0].write(CREATED, cancelled)
        lost = self.refusal_of(watching)
        self.assertEqual((lost.kind, lost.revision), (Refusal.COMPACTED, 17))
        self.assertTrue(self.streams[0].transport.disconnecting)

    def test_restored_cluster_is_noticed(self) -> None:
        watching = self.watch(revision=6)
        self.streams[0].write(CREATED)
        self.assertEqual(self.refusal_of(watching).kind, Refusal.REPLACED)

    def test_other_cluster_is_noticed(self) -> None:
        watching = self.watch(cluster_id=8)
        self.streams[0].write(CREATED)
        self.assertEqual(self.refusal_of(watching).kind, Refusal.REPLACED)

    def test_member_that_lags_behind_is_no_restored_cluster(self) -> None:
        behind = {"result": {"header": {**HEADER, "revision": "3"}, "created": True}}
        watching = self.watch(revision=5)
        self.streams[0].write(behind)
        self.assertNoResult(watching)
        self.assertEqual(self.connections, [""])
        self.end(watching)

    def test_refused_watch_is_reported(self) -> None:
        watching = self.watch()
        reason = "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
        self.streams[0].write(
            {"result": {"header": HEADER, "created": True, "canceled": True, "cancel_reason": reason}}
        )
        self.assertEqual(self.refusal_of(watching).kind, Refusal.AUTH)
        self.assertEqual(self.connections, [])
        self.assertEqual(self.watched(), [(A, 6)])
        self.assertNotIn(C, self.events)
