"""``--create-network``: the body of the request, retries, and the end when the service stops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import parse_address, parse_network
from macvlan_twisted.config import Config
from macvlan_twisted.engine.default_network import describe_network, ensure_network
from macvlan_twisted.engine.interfaces import EngineUnavailable

from .helpers import events_of

V4, V6 = parse_network("192.168.1.0/24"), parse_network("fd00::/64")
R4, R6 = parse_address("192.168.1.1"), parse_address("fd00::1")


@define
class Engine:
    """Answers when the test fires ``answer``."""

    requests: list[str] = field(factory=list)
    answer: Deferred[Any] = field(factory=Deferred)

    def _request(self, question: str) -> Deferred[Any]:
        self.requests.append(question)
        self.answer = Deferred()
        return self.answer

    async def has_network(self, name: str) -> bool:
        return bool(await self._request(f"has {name}"))

    async def create_network(self, description: Mapping[str, Any]) -> str:
        return str(await self._request(f"create {description['Name']}"))


class DescriptionTests(SynchronousTestCase):
    def test_families_without_a_gateway_are_left_out_unless_none_has_one(self) -> None:
        with_4, with_6 = {"Subnet": str(V4), "Gateway": str(R4)}, {"Subnet": str(V6), "Gateway": str(R6)}
        for gateways, configs, has_v6 in (
            ((R4, R6), [with_4, with_6], True),
            ((R4,), [with_4], False),
            ((R6,), [with_6], True),
            ((), [{"Subnet": str(V4)}, {"Subnet": str(V6)}], True),
        ):
            described = describe_network("lan", Config(subnets=(V6, V4), gateways=gateways))
            self.assertEqual((described["IPAM"]["Config"], described["EnableIPv6"]), (configs, has_v6))
            self.assertIs(described.get("EnableIPv4", True), gateways != (R6,))


class EnsureNetworkTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.engine = Engine()
        self.clock = Clock()
        self.events = events_of(self)

    def start(self, *gateways: Any) -> Deferred[None]:
        config = Config(subnets=(V6, V4), gateways=gateways)
        return ensureDeferred(ensure_network("lan", config, self.engine, self.clock))

    def logged(self) -> list[tuple[str, str]]:
        return [
            (event["log_level"].name, event["log_format"].format(**event))
            for event in self.events
            if event["log_namespace"].startswith("macvlan_twisted")
        ]

    def create(self, *gateways: Any) -> list[tuple[str, str]]:
        end = self.start(*gateways)
        self.engine.answer.callback(False)
        self.engine.answer.callback("0123456789abcdef")
        self.successResultOf(end)
        self.assertEqual(self.engine.requests, ["has lan", "create lan"])
        return self.logged()

    def test_the_log_tells_how_to_add_a_family(self) -> None:
        created, left_out = self.create(R4)
        self.assertEqual(created, ("info", "network lan: created in the engine (0123456789ab)"))
        self.assertEqual(left_out[0], "info")
        for words in ("without subnet fd00::/64", "--gateway=ADDRESS"):
            self.assertIn(words, left_out[1])

    def test_a_network_without_gateways_is_logged_as_a_warning(self) -> None:
        _, *warnings = self.create()
        self.assertEqual([level for level, _ in warnings], ["warn", "warn"])
        for (_, text), subnet in zip(warnings, (V4, V6), strict=True):
            self.assertIn(f"subnet {subnet} ", text)
            self.assertIn("--gateway=ADDRESS", text)

    def test_a_network_with_all_gateways_logs_one_line(self) -> None:
        self.assertEqual(len(self.create(R4, R6)), 1)

    def test_an_absent_engine_is_tried_again_with_growing_delay(self) -> None:
        self.start(R4)
        for delay in (1, 2, 4):
            self.engine.answer.errback(EngineUnavailable())
            self.assertEqual(
                [cast(Any, call).getTime() - self.clock.seconds() for call in self.clock.getDelayedCalls()],
                [delay],
            )
            self.clock.advance(delay)
        self.assertEqual(self.engine.requests, ["has lan"] * 4)
        self.assertEqual(
            [text for _, text in self.logged()],
            ["network lan: will be created as soon as the engine answers"],
        )

    def test_cancelled_task_requests_and_waits_for_nothing(self) -> None:
        for answers, requests in (((), ["has lan"]), ((False,), ["has lan", "create lan"])):
            with self.subTest(requests=requests):
                self.engine = Engine()
                end = self.start(R4)
                for answer in answers:
                    self.engine.answer.callback(answer)
                end.cancel()
                self.failureResultOf(end, CancelledError)
                self.assertEqual(self.engine.requests, requests)
                self.assertEqual(self.clock.getDelayedCalls(), [])
