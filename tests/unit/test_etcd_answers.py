"""What several releases of etcd answer, as they were recorded."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.fleet.etcd_answers import (
    CannotServe,
    JsonLines,
    StaleToken,
    decode_answer,
    decode_message,
    watch_refusal,
)
from macvlan_twisted.fleet.etcd_values import EtcdRefused, Refusal

REFUSALS = {
    "etcdserver: key is not provided": (400, 3, Refusal.BAD_REQUEST),
    "etcdserver: permission denied": (403, 7, Refusal.AUTH),
    "etcdserver: authentication failed, invalid user ID or password": (400, 3, Refusal.AUTH),
    "etcdserver: mvcc: database space exceeded": (429, 8, Refusal.NO_SPACE),
    "etcdserver: mvcc: required revision has been compacted": (400, 11, Refusal.COMPACTED),
    "etcdserver: mvcc: required revision is a future revision": (400, 11, Refusal.BAD_REQUEST),
    "etcdserver: requested lease not found": (404, 5, Refusal.NO_LEASE),
}
STALE = {
    "etcdserver: invalid auth token": (401, 16),
    "etcdserver: user name is empty": (400, 3),
    "etcdserver: revision of auth store is old": (400, 3),
}
CANNOT_SERVE = {
    "etcdserver: request timed out": (503, 14),
    "etcdserver: no leader": (503, 14),
    "etcdserver: leader changed": (503, 14),
    "context deadline exceeded": (504, 4),
    "etcdserver: too many requests": (429, 8),
}


class AnswersTests(SynchronousTestCase):
    def raised(self, status: int, fields: object) -> Exception:
        try:
            decode_answer(status, json.dumps(fields).encode())
        except (CannotServe, EtcdRefused) as error:
            return error
        raise AssertionError("it was taken for an answer")

    def test_refusals_have_a_kind_and_the_message(self) -> None:
        for message, (status, code, kind) in REFUSALS.items():
            for fields in (
                {"code": code, "message": message},
                {"error": message, "code": code, "message": message},
            ):
                with self.subTest(message=message):
                    error = self.raised(status, fields)
                    assert isinstance(error, EtcdRefused)
                    self.assertEqual((error.kind, str(error)), (kind, message))

    def test_token_that_is_not_accepted_is_told_from_a_wrong_password(self) -> None:
        for message, (status, code) in STALE.items():
            self.assertIsInstance(self.raised(status, {"code": code, "message": message}), StaleToken)

    def test_member_that_cannot_serve_refuses_nothing(self) -> None:
        for message, (status, code) in CANNOT_SERVE.items():
            self.assertIsInstance(self.raised(status, {"code": code, "message": message}), CannotServe)
        old = {"error": "context deadline exceeded", "message": "context deadline exceeded", "code": 2}
        self.assertIsInstance(self.raised(500, old), CannotServe)

    def test_other_servers_are_no_members(self) -> None:
        for raw in (b"<html>", b"[]", b"", b"\xff", b'{"hello": 1}', b'{"code":"x"'):
            with self.subTest(raw=raw):
                self.assertRaises(CannotServe, decode_answer, 200, raw)

    def test_errors_within_streams_are_found(self) -> None:
        for error in (
            {"grpc_code": 14, "http_code": 503, "message": "etcdserver: no leader"},
            {"code": 14, "message": "etcdserver: no leader"},
        ):
            self.assertRaises(CannotServe, decode_message, {"error": error})

    def test_result_of_a_stream_is_unwrapped(self) -> None:
        self.assertEqual(decode_message({"result": {"header": {}, "TTL": "7"}})["TTL"], "7")

    def test_cancelled_watch_has_a_reason(self) -> None:
        compacted = watch_refusal({"canceled": True, "compact_revision": "17"})
        assert isinstance(compacted, EtcdRefused)
        self.assertEqual((compacted.kind, compacted.revision), (Refusal.COMPACTED, 17))
        text = "rpc error: code = {} desc = etcdserver: {}"
        for reason, kind in (
            (text.format("PermissionDenied", "permission denied"), EtcdRefused),
            (text.format("Unauthenticated", "invalid auth token"), StaleToken),
            (text.format("InvalidArgument", "user name is empty"), StaleToken),
            ("something new", CannotServe),
        ):
            self.assertIs(type(watch_refusal({"canceled": True, "cancel_reason": reason})), kind)
        self.assertIsNone(watch_refusal({"created": True}))


class JsonLinesTests(SynchronousTestCase):
    def test_objects_are_found_however_the_stream_is_cut(self) -> None:
        stream = b'{"a":1}\n{"b":"\xc3\xa4"}\n\n{"c":3}'
        for size in range(1, len(stream) + 1):
            lines = JsonLines()
            found = []
            for start in range(0, len(stream), size):
                found += lines.feed(stream[start : start + size])
            self.assertEqual([*found, *lines.finish()], [{"a": 1}, {"b": "ä"}, {"c": 3}])

    def test_half_an_object_at_the_end_is_an_error(self) -> None:
        lines = JsonLines()
        lines.feed(b'{"a":')
        self.assertRaises(ValueError, lines.finish)
