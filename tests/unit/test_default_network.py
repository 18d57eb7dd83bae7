"""``--create-network``: what the engine is asked for, and when no more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from attrs import define, field
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import ILogObserver, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import parse_address, parse_network
from macvlan_twisted.config import Config
from macvlan_twisted.engine.client import EngineError, EngineUnavailable
from macvlan_twisted.engine.default_network import describe_network, ensure_network

V4, V6 = parse_network("192.168.1.0/24"), parse_network("fd00::/64")
R4, R6 = parse_address("192.168.1.1"), parse_address("fd00::1")


@define
class Engine:
    """Answers when the test says so."""

    asked: list[str] = field(factory=list)
    answer: Deferred[Any] = field(factory=Deferred)

    def _ask(self, question: str) -> Deferred[Any]:
        self.asked.append(question)
        self.answer = Deferred()
        return self.answer

    async def has_network(self, name: str) -> bool:
        return bool(await self._ask(f"has {name}"))

    async def create_network(self, description: Mapping[str, Any]) -> str:
        return str(await self._ask(f"create {description['Name']}"))


class DescriptionTests(SynchronousTestCase):
    def configs(self, *gateways: Any) -> tuple[list[dict[str, str]], dict[str, Any]]:
        described = describe_network("lan", Config(subnets=(V6, V4), gateways=gateways))
        return described["IPAM"]["Config"], described

    def test_each_subnet_has_its_gateway(self) -> None:
        configs, described = self.configs(R4, R6)
        self.assertEqual(
            configs,
            [{"Subnet": str(V4), "Gateway": str(R4)}, {"Subnet": str(V6), "Gateway": str(R6)}],
        )
        self.assertTrue(described["EnableIPv6"])

    def test_a_family_without_a_gateway_is_left_out(self) -> None:
        configs, described = self.configs(R4)
        self.assertEqual(configs, [{"Subnet": str(V4), "Gateway": str(R4)}])
        self.assertFalse(described["EnableIPv6"])
        configs, described = self.configs(R6)
        self.assertEqual(configs, [{"Subnet": str(V6), "Gateway": str(R6)}])
        self.assertTrue(described["EnableIPv6"])
        self.assertIs(described["EnableIPv4"], False)

    def test_all_subnets_are_there_if_none_has_a_gateway(self) -> None:
        configs, described = self.configs()
        self.assertEqual(configs, [{"Subnet": str(V4)}, {"Subnet": str(V6)}])
        self.assertTrue(described["EnableIPv6"])


class MakingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.engine = Engine()
        self.stopping = False
        self.waits: list[float] = []
        self.events: list[dict[str, Any]] = []
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def start(self, *gateways: Any) -> Deferred[None]:
        async def wait(seconds: float) -> None:
            self.waits.append(seconds)

        config = Config(subnets=(V6, V4), gateways=gateways)
        return ensureDeferred(ensure_network("lan", config, self.engine, wait, lambda: self.stopping))

    def told(self) -> list[tuple[str, str]]:
        return [
            (event["log_level"].name, event["log_format"].format(**event))
            for event in self.events
            if event["log_namespace"].startswith("macvlan_twisted")
        ]

    def made(self, *gateways: Any) -> list[tuple[str, str]]:
        end = self.start(*gateways)
        self.engine.answer.callback(False)
        self.engine.answer.callback("0123456789abcdef")
        self.successResultOf(end)
        self.assertEqual(self.engine.asked, ["has lan", "create lan"])
        return self.told()

    def test_the_log_says_how_a_family_is_added(self) -> None:
        created, left_out = self.made(R4)
        self.assertEqual(created, ("info", "network lan created in the engine: 0123456789ab"))
        self.assertEqual(left_out[0], "info")
        for words in ("without subnet fd00::/64", "--gateway=ADDRESS"):
            self.assertIn(words, left_out[1])

    def test_a_network_without_any_gateway_is_warned_of(self) -> None:
        _, *warnings = self.made()
        self.assertEqual([level for level, _ in warnings], ["warn", "warn"])
        for (_, text), subnet in zip(warnings, (V4, V6), strict=True):
            self.assertIn(f"subnet {subnet} ", text)
            self.assertIn("--gateway=ADDRESS", text)

    def test_with_all_gateways_nothing_more_is_said(self) -> None:
        self.assertEqual(len(self.made(R4, R6)), 1)

    def test_an_absent_engine_is_asked_again(self) -> None:
        self.start(R4)
        for _ in range(3):
            self.engine.answer.errback(EngineUnavailable())
        self.assertEqual(self.waits, [1, 2, 4])
        self.assertEqual(self.engine.asked, ["has lan"] * 4)
        self.assertEqual(
            [text for _, text in self.told()], ["network lan is created as soon as the engine answers"]
        )

    def test_nothing_is_asked_or_waited_for_after_the_stop(self) -> None:
        """Whatever becomes of the question that is open then."""
        for outcome in (True, False, EngineUnavailable(), EngineError("no")):
            with self.subTest(outcome=outcome):
                self.engine, self.waits, self.stopping = Engine(), [], False
                end = self.start(R4)
                self.stopping = True
                if isinstance(outcome, Exception):
                    self.engine.answer.errback(outcome)
                else:
                    self.engine.answer.callback(outcome)
                self.successResultOf(end)
                self.assertEqual((self.engine.asked, self.waits), (["has lan"], []))

    def test_nothing_is_waited_for_when_the_stop_comes_while_it_is_created(self) -> None:
        end = self.start(R4)
        self.engine.answer.callback(False)
        self.stopping = True
        self.engine.answer.errback(EngineUnavailable())
        self.successResultOf(end)
        self.assertEqual((self.engine.asked, self.waits), (["has lan", "create lan"], []))
