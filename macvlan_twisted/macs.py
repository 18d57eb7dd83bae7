"""MAC addresses for containers whose user sets none, and for links of our own."""

from __future__ import annotations

from hashlib import blake2s
from random import Random

from .addresses import IPInterface

# Unicast and locally administered. docker-macvlan of 2015 used 7a:42 with the IPv4 address.
_PREFIX = bytes((0x7A, 0x42))


def mac_from_ip(address: IPInterface | None, address_v6: IPInterface | None, endpoint_id: str) -> str:
    """
    ``7a:42:`` and the four bytes of the IPv4 address, or of a hash of the IPv6 address, or of a hash of the id.

    A container with the same address as before has the same MAC as before.
    """
    if address is not None:
        tail = address.ip.packed
    else:
        source = address_v6.ip.packed if address_v6 is not None else endpoint_id.encode()
        tail = blake2s(source, digest_size=4).digest()
    return (_PREFIX + tail).hex(":")


def mac_from_name(*names: str) -> str:
    """A hash of *names*: of a container and its pool, or of an instance and a parent."""
    return (_PREFIX + blake2s("\0".join(names).encode(), digest_size=4).digest()).hex(":")


def random_mac(random: Random) -> str:
    """A random MAC with the same prefix."""
    return (_PREFIX + random.randbytes(4)).hex(":")
