"""DHCPRELEASE: give a lease back (RFC 2131, 4.4.6)."""

from __future__ import annotations

from random import Random

from twisted.logger import Logger

from ..errors import LinkError
from ..failpoints import Failpoint
from ..lan.interfaces import LanSocket
from .binding import Binding
from .messages import ClientMessage, MessageType, encode

_log = Logger(namespace="macvlan_twisted.dhcp")

_RELEASE = Failpoint("dhcp.lease.release", "a DHCP server is told that a lease is over")


def release(socket: LanSocket, binding: Binding, random: Random) -> None:
    """
    Release *binding*, also where no :class:`~macvlan_twisted.dhcp.lease.Lease` of this process holds it. Servers do not
    answer; a frame that cannot be sent is logged.
    """
    message = ClientMessage(
        kind=MessageType.RELEASE,
        mac=binding.mac,
        xid=random.getrandbits(32),
        client_id=bytes.fromhex(binding.client_id),
        client_address=binding.address,
        server_id=binding.server_id,
        to=binding.server,
    )
    try:
        with _RELEASE:
            socket.send(encode(message))
    except LinkError as failure:
        # Cause: the parent is down or gone. Remedy: none needed; the server offers the address again when
        # the lease has expired.
        _log.warn(
            "DHCP {parent} {mac}: cannot release the lease of {address}, which expires by itself (server {server}; "
            "{reason})",
            parent=socket.parent,
            mac=binding.mac,
            address=binding.address,
            server=binding.server_id,
            reason=str(failure),
        )
    else:
        _log.debug(
            "DHCP {parent} {mac}: lease of {address} released (server {server})",
            parent=socket.parent,
            mac=binding.mac,
            address=binding.address,
            server=binding.server_id,
        )
