"""Which member is asked, how long, and what comes next; tokens; requests that wait."""

from __future__ import annotations

from errno import EAFNOSUPPORT, EPERM
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, fail
from twisted.internet.error import ConnectError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.fleet.etcd_gateway import PAGE, EtcdGateway
from macvlan_twisted.fleet.etcd_members import AT_ONCE, EtcdMembers
from macvlan_twisted.fleet.etcd_values import (
    Absent,
    Delete,
    EtcdRefused,
    EtcdUnavailable,
    Get,
    Header,
    KeyValue,
    Put,
    Refusal,
    encode,
)

from .etcd_cases import HEADER, MEMBERS, A, B, C, FakeEtcd, Json, Response, answer, refusal, refused, silence
from .helpers import fresh_directory


class EtcdCase(SynchronousTestCase):
    login: Path | None = None

    def setUp(self) -> None:
        self.clock = Clock()
        self.etcd = FakeEtcd()
        self.members = EtcdMembers(MEMBERS, self.etcd, self.clock)
        self.gateway = EtcdGateway(self.members, None, self.clock, Random(1), self.login)

    def tearDown(self) -> None:
        self.successResultOf(ensureDeferred(self.gateway.stop()))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def get(self, timeout: float = 1.0) -> Deferred[Any]:
        return ensureDeferred(self.gateway.get("/k", timeout=timeout))

    def txn(self, *, repeatable: bool) -> Deferred[Any]:
        return ensureDeferred(
            self.gateway.txn([Absent("/k")], [Put("/k", b"v")], [Get("/k")], repeatable=repeatable)
        )

    def failed(self, work: Deferred[Any]) -> EtcdUnavailable:
        error = self.failureResultOf(work, EtcdUnavailable).value
        assert isinstance(error, EtcdUnavailable)
        return error


class FailoverTests(EtcdCase):
    def test_next_member_is_asked_at_once_where_nobody_listens(self) -> None:
        self.etcd.behaviours[A] = lambda *_: refused()
        self.assertIsNone(self.successResultOf(self.get()))
        self.assertEqual(self.etcd.take_asked(), [A, B])

    def test_member_that_answered_last_is_asked_first(self) -> None:
        self.etcd.behaviours[A] = self.etcd.behaviours[B] = lambda *_: refused()
        self.successResultOf(self.get())
        self.etcd.take_asked()
        self.successResultOf(self.get())
        self.assertEqual(self.etcd.take_asked(), [C])

    def test_silent_member_has_half_of_the_time(self) -> None:
        self.etcd.behaviours[A] = lambda *_: silence()
        asked = self.get()
        self.clock.advance(0.49)
        self.assertNoResult(asked)
        self.clock.advance(0.02)
        self.assertIsNone(self.successResultOf(asked))
        self.assertEqual(self.etcd.take_asked(), [A, B])

    def test_silent_cluster_is_unavailable_in_time(self) -> None:
        self.etcd.behaviours = dict.fromkeys(MEMBERS, lambda *_: silence())
        asked = self.get(4.0)
        for _ in range(39):
            self.clock.advance(0.1)
        self.assertNoResult(asked)
        self.clock.advance(0.2)
        self.assertIn(f"{C} does not answer in time", str(self.failed(asked)))
        self.assertEqual(self.etcd.take_asked(), [A, B, C])

    def test_silence_within_a_body_is_silence(self) -> None:
        begun = Response()
        self.etcd.behaviours[A] = lambda *_: begun
        asked = self.get()
        begun.body.dataReceived(b'{"header"')
        self.clock.advance(0.5)
        self.assertIsNone(self.successResultOf(asked))
        self.assertTrue(begun.transport.disconnecting)

    def test_member_without_quorum_is_passed_over(self) -> None:
        self.etcd.behaviours[A] = lambda *_: refusal(14, "etcdserver: no leader", 503)
        self.assertIsNone(self.successResultOf(self.get()))
        self.assertEqual(self.etcd.take_asked(), [A, B])

    def test_refusal_is_the_clusters(self) -> None:
        self.etcd.behaviours[A] = lambda *_: refusal(3, "etcdserver: key is not provided")
        error = self.failureResultOf(self.get(), EtcdRefused).value
        self.assertEqual((error.kind, str(error)), (Refusal.BAD_REQUEST, "etcdserver: key is not provided"))
        self.assertEqual(self.etcd.take_asked(), [A])

    def test_error_names_every_member_and_its_reason(self) -> None:
        self.etcd.behaviours = dict.fromkeys(MEMBERS, lambda *_: refused())
        message = str(self.failed(self.get()))
        for url in MEMBERS:
            self.assertIn(f"{url} cannot be reached", message)

    def test_error_names_the_drop_in_if_the_unit_forbids_ip(self) -> None:
        for number in (EAFNOSUPPORT, EPERM):
            forbidden = ConnectError(number, "forbidden")
            self.etcd.behaviours = dict.fromkeys(MEMBERS, lambda *_, error=forbidden: fail(error))
            self.assertIn("install the systemd unit's drop-in fleet.conf", str(self.failed(self.get())))

    def test_cancelled_request_asks_nobody_else(self) -> None:
        self.etcd.behaviours[A] = lambda *_: silence()
        asked = self.get()
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.assertEqual(self.etcd.take_asked(), [A])

    def test_stopped_client_is_unavailable(self) -> None:
        self.etcd.behaviours[A] = lambda *_: silence()
        asked = self.get()
        self.successResultOf(ensureDeferred(self.gateway.stop()))
        self.failed(asked)
        self.failed(self.get())


class UnknownOutcomeTests(EtcdCase):
    def test_transaction_that_was_not_sent_goes_to_another_member(self) -> None:
        self.etcd.behaviours[A] = lambda *_: refused()
        self.successResultOf(self.txn(repeatable=False))
        self.assertEqual(self.etcd.take_asked(), [A, B])

    def test_transaction_that_may_have_been_sent_is_not_repeated(self) -> None:
        self.etcd.behaviours[A] = lambda *_: silence()
        asked = self.txn(repeatable=False)
        self.clock.advance(1)
        self.assertTrue(self.failed(asked).is_outcome_unknown)
        self.assertEqual(self.etcd.take_asked(), [A])

    def test_repeatable_transaction_is_repeated(self) -> None:
        self.etcd.behaviours[A] = lambda *_: silence()
        asked = self.txn(repeatable=True)
        self.clock.advance(0.5)
        self.successResultOf(asked)
        self.assertEqual(self.etcd.take_asked(), [A, B])

    def test_refusal_says_nothing_about_an_earlier_attempt(self) -> None:
        self.etcd.behaviours[A] = lambda *_: silence()
        self.etcd.behaviours[B] = lambda *_: refusal(8, "etcdserver: mvcc: database space exceeded", 429)
        asked = self.txn(repeatable=True)
        self.clock.advance(0.5)
        self.assertTrue(self.failed(asked).is_outcome_unknown)

    def test_transaction_that_reached_nobody_has_a_known_outcome(self) -> None:
        self.etcd.behaviours = dict.fromkeys(MEMBERS, lambda *_: refused())
        self.assertFalse(self.failed(self.txn(repeatable=True)).is_outcome_unknown)


class WaitingTests(EtcdCase):
    def test_some_requests_are_in_flight_at_once_and_others_wait_in_order(self) -> None:
        self.etcd.behaviours[A] = lambda *_: silence()
        early = [self.get(10) for _ in range(AT_ONCE)]
        late = self.get(10)
        self.assertEqual(self.etcd.take_asked(), [A] * AT_ONCE)
        self.clock.advance(5)
        for each in (*early, late):
            self.successResultOf(each)

    def test_time_of_waiting_counts(self) -> None:
        self.etcd.behaviours = dict.fromkeys(MEMBERS, lambda *_: silence())
        early = [self.get(10) for _ in range(AT_ONCE)]
        late = self.txn(repeatable=True)
        self.etcd.take_asked()
        self.clock.advance(1)
        self.assertFalse(self.failed(late).is_outcome_unknown)
        self.assertEqual(self.etcd.take_asked(), [])
        for each in early:
            each.cancel()
            self.failureResultOf(each, CancelledError)


class LearntMembersTests(EtcdCase):
    def queue_after(self, *listed: str) -> list[str]:
        self.etcd.lists_members = listed
        self.successResultOf(self.get())
        return self.members._queue

    def test_members_are_learnt_from_the_cluster(self) -> None:
        self.etcd.behaviours["http://d:2379"] = lambda *_: answer()
        self.assertEqual(self.queue_after(B, "http://d:2379/"), [*MEMBERS, "http://d:2379"])
        self.etcd.behaviours.update(dict.fromkeys(MEMBERS, lambda *_: refused()))
        self.successResultOf(self.get())
        self.assertEqual(self.etcd.take_asked()[-1], "http://d:2379")

    def test_members_are_read_again_when_another_one_answers(self) -> None:
        self.queue_after("http://d:2379")
        self.etcd.behaviours[A] = lambda *_: refused()
        self.assertEqual(self.queue_after("http://e:2379"), [B, C, A, "http://e:2379"])

    def test_urls_that_mean_another_host_are_left_out(self) -> None:
        for url in ("http://localhost:2379", "http://127.0.0.1:2379", "http://[::]:2379", "https://d:2379"):
            with self.subTest(url=url):
                self.setUp()
                self.assertEqual(self.queue_after(url), list(MEMBERS))


class ValuesTests(EtcdCase):
    def test_transaction_is_encoded_and_decoded(self) -> None:
        pair = {"key": encode(b"/k"), "value": encode(b"\0\xff"), "mod_revision": "4", "lease": "9"}
        self.etcd.behaviours[A] = lambda *_: answer({"responses": [{"response_range": {"kvs": [pair]}}]})
        done = self.successResultOf(
            ensureDeferred(
                self.gateway.txn(
                    [Absent("/k")], [Put("/k", b"v", lease=9), Delete("/l")], [Get("/k")], repeatable=True
                )
            )
        )
        self.assertEqual(done.read, ((KeyValue("/k", b"\0\xff", mod_revision=4, lease=9),),))
        self.assertEqual((done.succeeded, done.header), (False, Header(7, 5)))
        key = encode(b"/k")
        self.assertEqual(
            self.etcd.bodies[-1],
            {
                "compare": [{"key": key, "target": "CREATE", "result": "EQUAL", "create_revision": "0"}],
                "success": [
                    {"request_put": {"key": key, "value": encode(b"v"), "lease": "9"}},
                    {"request_delete_range": {"key": encode(b"/l")}},
                ],
                "failure": [{"request_range": {"key": key}}],
            },
        )

    def test_long_ranges_are_read_in_pages_at_one_revision(self) -> None:
        keys = [f"/k/{number:05}" for number in range(PAGE + 1)]
        pages = [keys[:PAGE], keys[PAGE:]]
        self.etcd.behaviours[A] = lambda *_: answer(
            {"kvs": [{"key": encode(each.encode())} for each in pages.pop(0)]}
        )
        found = self.successResultOf(ensureDeferred(self.gateway.range("/k/")))
        self.assertEqual([each.key for each in found.pairs], keys)
        first, second = self.etcd.bodies
        self.assertEqual(first["range_end"], encode(b"/k0"))
        self.assertEqual(second["key"], encode(keys[PAGE - 1].encode() + b"\0"))
        self.assertEqual((second["range_end"], second["revision"]), (first["range_end"], HEADER["revision"]))

    def test_lease_that_has_expired_has_no_seconds_left(self) -> None:
        for result, seconds in (({"ID": "3"}, 0), ({"ID": "3", "TTL": "15"}, 15)):
            told = answer({"result": {"header": HEADER, **result}})
            self.etcd.behaviours[A] = lambda *_, told=told: told
            self.assertEqual(self.successResultOf(ensureDeferred(self.gateway.keep_alive(3))), seconds)

    def test_answer_without_what_was_asked_for_is_no_answer(self) -> None:
        self.assertIn("ID", str(self.failed(ensureDeferred(self.gateway.grant_lease(5)))))


class TokenTests(EtcdCase):
    def setUp(self) -> None:
        self.login = fresh_directory(self) / "login"
        self.login.write_text("fleet:secret\n")
        self.valid = "t1"
        super().setUp()
        self.etcd.behaviours[A] = self.behave

    def behave(self, path: str, body: Json) -> Response:
        if path == "/v3/auth/authenticate":
            if body != {"name": "fleet", "password": "secret"}:
                return refusal(3, "etcdserver: authentication failed, invalid user ID or password")
            return answer({"token": self.valid})
        if self.etcd.tokens[-1] != self.valid:
            return refusal(16, "etcdserver: invalid auth token", 401)
        return answer()

    def test_one_token_serves_all_requests(self) -> None:
        for _ in range(3):
            self.successResultOf(self.get())
        self.assertEqual([path for _, path in self.etcd.asked].count("/v3/auth/authenticate"), 1)

    def test_token_is_renewed_when_it_is_not_accepted_any_more(self) -> None:
        self.successResultOf(self.get())
        self.valid = "t2"
        self.successResultOf(self.get())
        self.assertEqual(self.etcd.tokens, ["", "t1", "t1", "", "t2"])

    def test_waiting_requests_share_one_authentication(self) -> None:
        slow: Deferred[Any] = Deferred()
        self.etcd.behaviours[A] = lambda *_: slow
        asked = [self.get(10) for _ in range(4)]
        self.assertEqual(self.etcd.asked, [(A, "/v3/auth/authenticate")])
        self.etcd.behaviours[A] = self.behave
        slow.callback(answer({"token": self.valid}))
        for each in asked:
            self.successResultOf(each)

    def test_slow_authentication_serves_later_requests(self) -> None:
        slow: Deferred[Any] = Deferred()
        self.etcd.behaviours[A] = lambda *_: slow
        early = self.get()
        self.clock.advance(1)
        self.assertIn("check the password", str(self.failed(early)))
        self.etcd.behaviours[A] = self.behave
        slow.callback(answer({"token": self.valid}))
        self.successResultOf(self.get())
        self.assertEqual([path for _, path in self.etcd.asked].count("/v3/auth/authenticate"), 1)

    def test_wrong_password_names_the_file(self) -> None:
        assert self.login
        self.login.write_text("fleet:wrong\n")
        error = self.failureResultOf(self.get(), EtcdRefused).value
        self.assertEqual(error.kind, Refusal.AUTH)
        self.assertIn(str(self.login), str(error))
        self.login.write_text("fleet:secret\n")
        self.successResultOf(self.get())

    def test_file_without_a_password_is_named(self) -> None:
        assert self.login
        for text in ("", "fleet", ":secret", "fleet:\n"):
            self.login.write_text(text)
            error = self.failureResultOf(self.get(), EtcdRefused).value
            self.assertEqual(error.kind, Refusal.CREDENTIALS)
            self.assertIn(f"{self.login} has no name and password: write NAME:PASSWORD", str(error))
        self.login.unlink()
        self.assertIn("No such file", str(self.failureResultOf(self.get(), EtcdRefused).value))

    def test_etcd_without_authentication_needs_no_token(self) -> None:
        self.etcd.behaviours[A] = lambda path, _: (
            refusal(9, "etcdserver: authentication is not enabled") if "auth" in path else answer()
        )
        self.successResultOf(self.get())
        self.assertEqual(self.etcd.tokens, ["", ""])
