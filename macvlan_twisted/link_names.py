"""
Names and aliases of our links.

A name is derived from an id, so that it need not be remembered. It has at most 15 bytes (IFNAMSIZ - 1), so it holds a hash.
"""

from __future__ import annotations

from hashlib import blake2s

ALIAS_PREFIX = "macvlan-twisted"
_HASH_BYTES = 6


def _derived(prefix: str, identifier: str) -> str:
    return prefix + blake2s(identifier.encode(), digest_size=_HASH_BYTES).hexdigest()


def endpoint_link_name(endpoint_id: str) -> str:
    """The link of an endpoint, while it is in the namespace of the host."""
    return _derived("mvt", endpoint_id)


def probe_link_name(network_id: str) -> str:
    """The link that checks whether the kernel accepts the options of a new network."""
    return _derived("mvx", network_id)


def dummy_link_name(network_id: str) -> str:
    """The dummy link that is the parent of an internal network without a NIC."""
    return _derived("mvd", network_id)


def host_link_name(instance: str, parent: str) -> str:
    """The host link: the host's own macvlan link on a parent that is in use."""
    return _derived("mvh", f"{instance} {parent}")


def vlan_link_name(lower: str, vlan_id: int) -> str:
    """``eth1.20``, or a derived name if that is longer than 15 bytes."""
    name = f"{lower}.{vlan_id}"
    return name if len(name.encode()) <= 15 else f"{_derived('mvv', lower)[:10]}.{vlan_id}"


def alias_of(instance: str, kind: str, identifier: str) -> str:
    """
    The alias (IFLA_IFALIAS) that marks a link as ours.

    :param instance: the id of the state directory. Several instances on one host tell their links apart by it.
    :param kind: ``endpoint``, ``host``, ``vlan`` or the like.
    :param identifier: the id of an endpoint or network, or the name of a parent.
    """
    return f"{ALIAS_PREFIX}/{instance}/{kind}/{identifier}"


def instance_prefix(instance: str) -> str:
    """The beginning of every alias of *instance*."""
    return f"{ALIAS_PREFIX}/{instance}/"
