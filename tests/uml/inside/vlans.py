"""VLANs on the lab's LAN: stations behind tags, and the tags of what is heard on the wire.

The lab's switch is a bridge that does not look at tags: what leaves the host tagged arrives tagged.
"""

import re

from tests.lab.lan import Lan

UPLINK = "eth1"


def station(lan: Lan, tags: str, address: str) -> str:
    """Return the address, without prefix length, of a neighbour behind these tags (``20``, or ``20.30``).

    A tag is 802.1Q unless it ends in ``ad``: ``20ad.30`` is VLAN 30 in service VLAN 20 of 802.1ad.
    """
    below = UPLINK
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


def vlan_of(lan: Lan, name: str) -> tuple[str, int, str]:
    """The protocol, id and parent of a VLAN link of the docker host: ("802.1Q", 20, "eth1")."""
    link = lan.host_links()[name]
    data = link["linkinfo"]["info_data"]
    assert link["linkinfo"]["info_kind"] == "vlan", f"{name} is no VLAN: {link}"
    return data["protocol"], data["id"], link["link"]
