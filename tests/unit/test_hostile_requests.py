"""What a hostile client sends is refused in a line that harms neither the log nor a terminal."""

from __future__ import annotations

import json
from typing import Any, cast

from twisted.logger import ILogObserver, LogEvent, globalLogPublisher

from macvlan_twisted.protocol.errors import MAX_MESSAGE_LENGTH, printable
from macvlan_twisted.protocol.json_reader import MAX_TEXT_LENGTH

from .helpers import PluginHarness
from .site_cases import SiteTestCase, request

NAME = "com.docker.network.endpoint.name"


class HostileRequestTests(SiteTestCase):
    def test_a_length_of_thousands_of_digits_is_no_number_and_no_error_of_ours(self) -> None:
        connection = self.connect()
        connection.send(
            b"POST /Plugin.Activate HTTP/1.1\r\nHost: \r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n"
        )
        self.assertTrue(connection.raw.startswith(b"HTTP/1.1 400 "), connection.raw)
        self.assertFalse(connection.is_open)

    def test_a_header_with_a_long_name_is_refused_and_its_name_is_not_kept(self) -> None:
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

    def test_a_path_that_is_no_text_is_404_as_json(self) -> None:
        for path in ("%ff", "Plugin.Activate%c3", "%00%ff%0a"):
            connection = self.connect()
            connection.send(request("X", b"").replace(b"/X", b"/" + path.encode()))
            (reply,) = connection.replies
            self.assertEqual(reply.status, 404)
            self.assertIn("Err", reply.body)

    def test_what_is_echoed_is_one_line_that_is_not_too_long(self) -> None:
        events: list[LogEvent] = []
        observer = cast(ILogObserver, events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
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
            said = self.post(method, **body)["Err"]
            self.assertTrue(said.isprintable(), said)
            self.assertLess(len(said), MAX_MESSAGE_LENGTH + 1)
        refusals = [
            str(event["reason"]) for event in events if event["log_format"].startswith("{method} refused")
        ]
        self.assertEqual(len(refusals), len(bodies))
        for reason in refusals:
            self.assertTrue(reason.isprintable(), reason)
            self.assertLess(len(reason), MAX_MESSAGE_LENGTH + 1)

    def test_a_text_of_a_megabyte_is_refused_and_not_kept(self) -> None:
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

    def test_what_cannot_be_a_containers_name_is_none(self) -> None:
        self.serve(PluginHarness())
        pool = self.post("IpamDriver.RequestPool", AddressSpace="MacvlanTwistedLocal", Pool="10.0.0.0/24")[
            "PoolID"
        ]
        for name in ("n" * 256, "a\nb", "\x1b[2J"):
            self.post("IpamDriver.RequestAddress", PoolID=pool, Address="", Options={NAME: name})
        self.assertEqual([claim.name for claim in self.plugin.store.claims()], ["", "", ""])
        self.post("IpamDriver.RequestAddress", PoolID=pool, Address="", Options={NAME: "web-1.x_2"})
        self.assertIn("web-1.x_2", [claim.name for claim in self.plugin.store.claims()])


class LegibleTests(SiteTestCase):
    def test_plain_words_are_left_as_they_are(self) -> None:
        for text in ("", "address 10.0.0.7 is taken", "Grüße, 日本"):
            self.assertEqual(printable(text), text)

    def test_the_ends_of_a_long_text_are_kept(self) -> None:
        told = printable("begin" + "x" * 10_000 + "end")
        self.assertTrue(told.startswith("begin"))
        self.assertTrue(told.endswith("end"))
        self.assertLessEqual(len(told), MAX_MESSAGE_LENGTH)

    def test_what_does_something_to_a_terminal_is_written_out(self) -> None:
        self.assertEqual(printable("a\x1b[2J\nb\u2028"), "a\\x1b[2J\\nb\\u2028")
        json.dumps(printable("\ud800")).encode()
