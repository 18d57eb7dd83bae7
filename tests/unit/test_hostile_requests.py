"""Hostile requests are refused, with messages that are safe in a log and in a terminal."""

from __future__ import annotations

import json
from typing import Any

from macvlan_twisted.protocol.errors import MAX_MESSAGE_LENGTH, printable
from macvlan_twisted.protocol.json_reader import MAX_TEXT_LENGTH

from .helpers import PluginHarness, events_of
from .site_cases import SiteTestCase, request

NAME = "com.docker.network.endpoint.name"


class HostileRequestTests(SiteTestCase):
    def test_a_content_length_of_thousands_of_digits_is_400(self) -> None:
        connection = self.connect()
        connection.send(
            b"POST /Plugin.Activate HTTP/1.1\r\nHost: \r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n"
        )
        self.assertTrue(connection.raw.startswith(b"HTTP/1.1 400 "), connection.raw)
        self.assertFalse(connection.is_open)

    def test_a_long_header_name_is_400_and_is_not_cached(self) -> None:
        from twisted.web import http_headers

        name = b"X-" + b"long" * 2000
        connection = self.connect()
        connection.send(
            b"POST /Plugin.Activate HTTP/1.1\r\nHost: \r\n" + name + b": 1\r\nContent-Length: 0\r\n\r\n"
        )
        self.assertTrue(connection.raw.startswith(b"HTTP/1.1 400 "), connection.raw)
        self.assertFalse(connection.is_open)
        kept = http_headers._nameEncoder._canonicalHeaderCache
        self.assertLess(max(len(each) for each in kept), 200)

    def test_a_path_that_is_not_utf_8_is_404_as_json(self) -> None:
        for path in ("%ff", "Plugin.Activate%c3", "%00%ff%0a"):
            connection = self.connect()
            connection.send(request("X", b"").replace(b"/X", b"/" + path.encode()))
            (reply,) = connection.replies
            self.assertEqual(reply.status, 404)
            self.assertIn("Err", reply.body)

    def test_messages_quote_input_in_one_short_printable_line(self) -> None:
        events = events_of(self)
        evil = "\x1b[2J\n2026-01-01 forged\u2028" + "x" * 3000
        bodies: list[tuple[str, dict[str, Any]]] = [
            ("IpamDriver.RequestAddress", {"PoolID": evil, "Address": "", "Options": None}),
            ("IpamDriver.RequestAddress", {"PoolID": "x", "Address": evil}),
            (
                "NetworkDriver.CreateNetwork",
                {"NetworkID": "a", "Options": {"com.docker.network.generic": {evil: evil}}},
            ),
            (
                "NetworkDriver.CreateNetwork",
                {"NetworkID": "a", "Options": {"com.docker.network.generic": {"parent": evil}}},
            ),
        ]
        for method, body in bodies:
            message = self.post(method, **body)["Err"]
            self.assertTrue(message.isprintable(), message)
            self.assertLess(len(message), MAX_MESSAGE_LENGTH + 1)
        refusals = [
            str(event["reason"]) for event in events if event["log_format"].startswith("{method} refused")
        ]
        self.assertEqual(len(refusals), len(bodies))
        for reason in refusals:
            self.assertTrue(reason.isprintable(), reason)
            self.assertLess(len(reason), MAX_MESSAGE_LENGTH + 1)

    def test_a_long_string_is_refused_and_not_saved(self) -> None:
        long = "s" * (MAX_TEXT_LENGTH + 1)
        self.refused(
            "IpamDriver.RequestPool",
            "AddressSpace",
            str(MAX_TEXT_LENGTH),
            AddressSpace=long,
            Pool="10.0.0.0/24",
        )
        self.refused("NetworkDriver.Join", "SandboxKey", NetworkID="a", EndpointID="b", SandboxKey=long)
        self.assertEqual(self.plugin.store.open, {})

    def test_an_impossible_container_name_is_not_recorded(self) -> None:
        self.serve(PluginHarness())
        pool = self.post("IpamDriver.RequestPool", AddressSpace="MacvlanTwistedLocal", Pool="10.0.0.0/24")[
            "PoolID"
        ]
        for name in ("n" * 256, "a\nb", "\x1b[2J"):
            self.post("IpamDriver.RequestAddress", PoolID=pool, Address="", Options={NAME: name})
        self.assertEqual([claim.name for claim in self.plugin.store.allocations()], ["", "", ""])
        self.post("IpamDriver.RequestAddress", PoolID=pool, Address="", Options={NAME: "web-1.x_2"})
        self.assertIn("web-1.x_2", [claim.name for claim in self.plugin.store.allocations()])


class PrintableTests(SiteTestCase):
    def test_a_long_text_loses_its_middle(self) -> None:
        text = printable("begin" + "x" * 10_000 + "end")
        self.assertTrue(text.startswith("begin"))
        self.assertTrue(text.endswith("end"))
        self.assertLessEqual(len(text), MAX_MESSAGE_LENGTH)

    def test_only_control_characters_are_escaped(self) -> None:
        for text in ("", "address 10.0.0.7 is taken", "Grüße, 日本"):
            self.assertEqual(printable(text), text)
        self.assertEqual(printable("a\x1b[2J\nb\u2028"), "a\\x1b[2J\\nb\\u2028")
        json.dumps(printable("\ud800")).encode()
