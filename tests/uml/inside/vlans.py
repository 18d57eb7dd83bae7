"""VLANs on the lab's LAN: links of the docker host, stations behind tags, and the tags of what is heard.

The lab's switch is a bridge that does not look at tags: what leaves the host tagged arrives tagged.
"""

import re
from typing import Any

from tests.lab.lan import Lan

NIC = "eth2"
"""The docker host's second NIC: nobody else's addresses and routes are upon it."""


class Host:
    """The links of the docker host."""

    def __init__(self, lan: Lan) -> None:
        """Look at the docker host of this LAN."""
        self.lan = lan
        self._at_first = set(self.links)

    @property
    def links(self) -> dict[str, dict[str, Any]]:
        """What the kernel says of each link (``ip -details -json link``), by name."""
        return self.lan.host_links()

    def ip(self, *words: str) -> None:
        """Run ip(8) in the docker host."""
        self.lan.run_in("host", "ip", *words)

    def add_vlan(self, name: str, lower: str, number: int, protocol: str = "802.1Q") -> None:
        """Make a VLAN as somebody does who is not the plugin."""
        self.ip(
            "link",
            "add",
            "link",
            lower,
            "name",
            name,
            "type",
            "vlan",
            "protocol",
            protocol,
            "id",
            str(number),
        )

    def replace_vlan(self, name: str, lower: str, number: int) -> None:
        """Remove a VLAN and make another one at once, before the plugin makes its own again."""
        lines = f"link delete {name}\\nlink add link {lower} name {name} type vlan id {number}\\n"
        self.lan.run_in("host", "sh", "-c", f"printf '{lines}' | ip -batch -")

    def is_up(self, name: str) -> bool:
        """Whether a link is set up."""
        return "UP" in self.links[name]["flags"]

    def vlan(self, name: str) -> tuple[str, int, str]:
        """The protocol, id and lower link of a VLAN: ("802.1Q", 20, "eth2")."""
        link = self.links[name]
        assert link["linkinfo"]["info_kind"] == "vlan", f"{name} is no VLAN: {link}"
        data = link["linkinfo"]["info_data"]
        return data["protocol"], data["id"], link["link"]

    @property
    def extra(self) -> set[str]:
        """The names of links that were not there at first."""
        return set(self.links) - self._at_first

    def clear(self) -> None:
        """Remove what was not there at first."""
        for name in self.extra:
            self.lan.attempt_in("host", "ip", "link", "delete", name)  # it may have gone with its lower link


def station(lan: Lan, tags: str, address: str) -> str:
    """Return the address, without prefix length, of a neighbour behind these tags (``20``, or ``20.30``).

    A tag is 802.1Q unless it ends in ``ad``: ``20ad.30`` is VLAN 30 in service VLAN 20 of 802.1ad.
    """
    below = "eth1"
    for tag in tags.split("."):
        name = f"{below}.{tag}"
        protocol = "802.1ad" if tag.endswith("ad") else "802.1Q"
        if lan.attempt_in("neighbour", "ip", "link", "show", name).status != 0:
            lan.run_in("neighbour", "ip", "link", "add", "link", below, "name", name,
                       "type", "vlan", "protocol", protocol, "id", tag.removesuffix("ad"))  # fmt: skip
            lan.run_in("neighbour", "ip", "link", "set", name, "up")
        below = name
    lan.run_in("neighbour", "ip", "address", "replace", address, "dev", below)
    return address.partition("/")[0]


def tags_of(line: str) -> list[int]:
    """Return the VLAN ids in a line of ``tcpdump -e``, outermost first."""
    return [int(found) for found in re.findall(r"\bvlan (\d+),", line)]
