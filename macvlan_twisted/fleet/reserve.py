"""How many addresses a host claims ahead of need."""

from __future__ import annotations

MOST_WITHOUT_DEMAND = 8


def reserve_size(wanted: int, free: int, size: int, hosts: int) -> int:
    """
    At least one address, and a fair part of what is free: all hosts together hold a quarter of it at most, unless there are more
    hosts than that.

    :param wanted: how many the host would hold if it were alone; more than :data:`MOST_WITHOUT_DEMAND` after a burst of requests.
    :param free: addresses that no host has, with the reserve of this host. :param size: of the whole range.
    :param hosts: how many hosts are known.
    """
    base = max(1, min(MOST_WITHOUT_DEMAND, free // (4 * max(1, hosts))))
    if wanted > MOST_WITHOUT_DEMAND and 2 * free > size:
        return min(wanted, max(base, free // 2))
    return min(wanted, base)
