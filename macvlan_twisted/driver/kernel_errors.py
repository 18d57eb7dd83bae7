"""Why an endpoint has no link: what the kernel's refusal means to a person, and which endpoint is in the way."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from ..display_names import DisplayNames
from ..errors import LinkError, MacvlanError, RequestRefused
from ..option_values import MacvlanMode
from .models import Endpoint, Network
from .parent_status import ParentAbsent


def mac_in_use(holder: Endpoint, names: DisplayNames) -> RequestRefused:
    return RequestRefused(
        f"MAC address {holder.mac} is in use on parent {holder.parent} by {names.endpoint(holder.endpoint_id)} of network "
        f"{names.network(holder.network_id)}: use another --mac-address or another --ip"
    )


def explained(
    failure: LinkError,
    network: Network,
    names: DisplayNames,
    mac: str | None = None,
    others: Sequence[Endpoint] = (),
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
            f"MAC address {mac} is in use on parent {parent} by the NIC itself or another container's "
            "link: use another --mac-address"
        )
    if failure.errno == errno.ENODEV:
        # Remedy: when it is back, create the network or start the container again.
        return LinkError(
            f"parent {parent} has just disappeared: start the container again when it is back",
            errno.ENODEV,
        )
    if failure.errno == errno.EINVAL and network.mode == MacvlanMode.PASSTHRU and others:
        return RequestRefused(
            f"parent {parent} supports only one container in mode passthru and is in use by "
            f"{names.endpoint(others[0].endpoint_id)}: stop that container"
        )
    if failure.errno == errno.EINVAL and network.mode == MacvlanMode.PASSTHRU:
        return LinkError(
            f"parent {parent} has macvlan links of another program and cannot be used in mode "
            "passthru: remove those links, or choose another mode or parent",
            errno.EINVAL,
        )
    if failure.errno == errno.EINVAL:
        mtu = "" if network.mtu is None else f"its MTU is less than the network's {network.mtu}, "
        # Remedy: choose another parent, stop the other program, or raise the parent's MTU if the message names it.
        return LinkError(
            f"parent {parent} does not accept macvlan links: {mtu}another program uses it in mode "
            "passthru, or it is not an Ethernet link; choose another parent, or stop the other program",
            errno.EINVAL,
        )
    if failure.errno == errno.EBUSY:
        return LinkError(
            f"parent {parent} is in use by ipvlan, a bridge or a bond: choose another parent",
            errno.EBUSY,
        )
    return failure
