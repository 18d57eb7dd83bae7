"""
Names that anyone can tell again from an id, and the mark by which our links are known.

A link's name must fit 15 bytes, so it is made of a hash of the endpoint's or network's id.
"""

from __future__ import annotations

from hashlib import blake2s

ALIAS_PREFIX = "macvlan-twisted"
_HASH_BYTES = 6


def _derived(prefix: str, identifier: str) -> str:
    return prefix + blake2s(identifier.encode(), digest_size=_HASH_BYTES).hexdigest()


def endpoint_link_name(endpoint_id: str) -> str:
    """The link of an endpoint while it is in the host's namespace: 15 bytes."""
    return _derived("mvt", endpoint_id)


def probe_link_name(network_id: str) -> str:
    """The link by which a new network's options are tried on the kernel."""
    return _derived("mvx", network_id)


def dummy_link_name(network_id: str) -> str:
    """The parent of an internal network that has no NIC."""
    return _derived("mvd", network_id)


def host_link_name(instance: str, parent: str) -> str:
    """Our own link on a parent, in the host's namespace for as long as the parent is in use."""
    return _derived("mvh", f"{instance} {parent}")


def vlan_link_name(lower: str, vlan_id: int) -> str:
    """``eth1.20``; where that is longer than 15 bytes, a derived name."""
    name = f"{lower}.{vlan_id}"
    return name if len(name.encode()) <= 15 else f"{_derived('mvv', lower)[:10]}.{vlan_id}"


def alias_of(instance: str, kind: str, identifier: str) -> str:
    """
    Whose a link is: ours, of the instance (one state directory), and of which endpoint or network.

    Two instances on one host tell their links apart by it.
    """
    return f"{ALIAS_PREFIX}/{instance}/{kind}/{identifier}"


def instance_prefix(instance: str) -> str:
    return f"{ALIAS_PREFIX}/{instance}/"
