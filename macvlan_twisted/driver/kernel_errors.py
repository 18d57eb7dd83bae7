"""Why an endpoint has no link: what the kernel's refusal means to a person, and which endpoint is in the way."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from ..errors import LinkError, MacvlanError, RequestRefused
from ..option_values import MacvlanMode
from .models import Endpoint, Network
from .parent_status import ParentAbsent


def mac_in_use(holder: Endpoint) -> RequestRefused:
    return RequestRefused(
        f"MAC address {holder.mac} is in use on parent {holder.parent} by endpoint {holder.endpoint_id} of network "
        f"{holder.network_id}: give another --mac-address or another address"
    )


def explained(
    failure: LinkError, network: Network, mac: str | None = None, others: Sequence[Endpoint] = ()
) -> MacvlanError:
    """
    The error to raise instead of *failure*, which came of making a link of *network* with *mac*.

    :param others: the endpoints that the network has already.

    The kernel has one number for several causes; here are those that were measured.
    """
    if isinstance(failure, ParentAbsent):
        return failure
    parent = network.parent
    if failure.errno == errno.EADDRINUSE:
        return RequestRefused(
            f"MAC address {mac} is in use on parent {parent}, by the NIC itself or another container's link: give "
            "another --mac-address"
        )
    if failure.errno == errno.ENODEV:
        return LinkError(
            f"parent {parent} of network {network.network_id} went away just now: the network is kept, and containers can "
            "be started as soon as it is back",
            errno.ENODEV,
        )
    if failure.errno == errno.EINVAL and network.mode == MacvlanMode.PASSTHRU and others:
        return RequestRefused(
            f"network {network.network_id} is in mode passthru, in which parent {parent} carries one container alone, and "
            f"endpoint {others[0].endpoint_id} has it: stop that container"
        )
    if failure.errno == errno.EINVAL and network.mode == MacvlanMode.PASSTHRU:
        return LinkError(
            f"cannot use mode passthru: parent {parent} has macvlan links of another driver or program: remove them, "
            "or choose another mode or parent",
            errno.EINVAL,
        )
    if failure.errno == errno.EINVAL:
        mtu = "" if network.mtu is None else f"its MTU is less than the network's {network.mtu}, "
        return LinkError(
            f"parent {parent} takes no macvlan link: {mtu}another program holds it in mode passthru, or it is no "
            "Ethernet link: mend that, or choose another parent",
            errno.EINVAL,
        )
    if failure.errno == errno.EBUSY:
        return LinkError(
            f"parent {parent} is busy: it is in use by ipvlan, a bridge or a bond: choose another parent",
            errno.EBUSY,
        )
    return failure
