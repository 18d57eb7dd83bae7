"""Locations of etcd clusters."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.fleet.location import DEFAULT_PREFIX, EtcdLocation, parse_etcd_location

GOOD = {
    "etcd://a:2379,b:2380,c:2381": EtcdLocation(("a:2379", "b:2380", "c:2381")),
    "etcd://a": EtcdLocation(("a:2379",)),
    "etcd://a/": EtcdLocation(("a:2379",)),
    "etcd://a.example:1/other/prefix/": EtcdLocation(("a.example:1",), "/other/prefix"),
    "etcd://192.168.1.2, 192.168.1.3": EtcdLocation(("192.168.1.2:2379", "192.168.1.3:2379")),
    "etcd://[fd00::1]:4,[fd00::2]": EtcdLocation(("[fd00::1]:4", "[fd00::2]:2379")),
}
BAD = {
    "": "use etcd://HOST:2379",
    "http://a:2379": "'http://a:2379' is not the location",
    "etcd://": "'' is not a member",
    "etcd://a,,b": "'' is not a member",
    "etcd://fd00::1": "'fd00::1' is not a member|':1' in",
    "etcd://[fd00::1": "with an IPv6 address in brackets",
    "etcd://[fd00::1]2379": "with an IPv6 address in brackets",
    "etcd://[a]:1": "with an IPv6 address in brackets",
    "etcd://user@a": "'user@a' is not a member",
    "etcd://a:": "'' in 'a:' is not a port: use a number from 1 to 65535",
    "etcd://a:0": "'0' in 'a:0'",
    "etcd://a:65536": "'65536' in",
    "etcd://a:²": "'²' in",
    "etcd://a,b,a:2379": "'a:2379' is there twice",
    "etcd://a//b": "'//b' is not a prefix|is not a prefix of keys",
    "etcd://a/b c": "'/b c' is not a prefix of keys: use letters",
}


class LocationTests(SynchronousTestCase):
    def test_members_and_prefix_are_parsed(self) -> None:
        for text, location in GOOD.items():
            with self.subTest(text=text):
                self.assertEqual(parse_etcd_location(text), location)
                self.assertEqual(parse_etcd_location(str(location)), location)

    def test_error_names_the_value_and_the_remedy(self) -> None:
        for text, words in BAD.items():
            with self.subTest(text=text):
                error = self.assertRaises(ValueError, parse_etcd_location, text)
                self.assertRegex(str(error), words)

    def test_certificates_choose_the_scheme(self) -> None:
        location = parse_etcd_location("etcd://a,[fd00::1]")
        self.assertEqual(location.urls(encrypted=False), ("http://a:2379", "http://[fd00::1]:2379"))
        self.assertEqual(location.urls(encrypted=True), ("https://a:2379", "https://[fd00::1]:2379"))
        self.assertEqual(location.prefix, DEFAULT_PREFIX)
