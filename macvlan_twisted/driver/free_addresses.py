"""Whether nobody else has an address that our own address management did not hand out."""

from __future__ import annotations

from ..addresses import IPAddress
from ..errors import RequestRefused
from ..lan.conflicts import Conflicts, Inconclusive, Taken
from ..option_values import ConflictDetection
from .models import Network


async def refuse_used_by_others(
    conflicts: Conflicts, network: Network, address: IPAddress, what: str, remedy: str
) -> None:
    """
    Hold *address* for *network*, where its option says so.

    :param what: whose address it is, as in ``host address``.
    :param remedy: what the user can do about one that is in use.
    :raises Refused: it is in use, or that cannot be found out and the option is strict.
    """
    if network.conflict_detection == ConflictDetection.OFF:
        return
    verdict = await conflicts.hold(network.parent, address, network.network_id)
    if isinstance(verdict, Taken):
        raise RequestRefused(
            f"{what} {address} is in use on {network.parent}: MAC {verdict.mac} {verdict.how.value}; {remedy}"
        )
    if isinstance(verdict, Inconclusive):
        if network.conflict_detection == ConflictDetection.STRICT:
            raise RequestRefused(
                f"it cannot be found out whether {what} {address} is in use on {network.parent}: {verdict.reason}; "
                "mend that, or create the network with -o conflict_detection=on"
            )
        conflicts.count_unproven(network.parent, address, verdict.reason)
