"""The files in network-managers/ match all links of ours and no others."""

import re
from fnmatch import fnmatchcase
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.link_names import (
    dummy_link_name,
    endpoint_link_name,
    host_link_name,
    probe_link_name,
    vlan_link_name,
)

_DIRECTORY = Path(__file__).resolve().parents[2] / "network-managers"
_OURS = (
    endpoint_link_name("e" * 64),
    probe_link_name("n" * 64),
    dummy_link_name("n" * 64),
    host_link_name("instance", "eth1"),
    vlan_link_name("enp129s0f0np0", 4094),
    vlan_link_name("enp129s0f0np15", 2),
)
_OTHERS = ("eth1", "eth1.20", "mvhome", "mvt0", "mvd-storage")


def _patterns(file: str, setting: str) -> list[str]:
    text = (_DIRECTORY / file).read_text()
    (values,) = re.findall(rf"^{setting}(.*)$", text, re.MULTILINE)
    return [each.removeprefix("interface-name:") for each in re.split(r"[ ;]+", values)]


class NamesTests(SynchronousTestCase):
    def _check(self, patterns: list[str]) -> None:
        for name in _OURS:
            self.assertTrue(any(fnmatchcase(name, each) for each in patterns), f"{name} is left to it")
        for name in _OTHERS:
            self.assertFalse(any(fnmatchcase(name, each) for each in patterns), f"{name} is taken from it")

    def test_networkmanager_ignores_our_links_only(self) -> None:
        self._check(_patterns("networkmanager.conf", "match-device="))

    def test_systemd_networkd_ignores_our_links_only(self) -> None:
        self._check(_patterns("systemd-networkd.network", "Name="))

    def test_dhcpcd_ignores_our_links_only(self) -> None:
        self._check(_patterns("dhcpcd.conf", "denyinterfaces "))
