"""What we ask of a wire: to send frames onto one parent's LAN, and to hear what others send there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import frozen


@frozen
class ReceivedFrame:
    """An Ethernet frame without a VLAN tag, as the tap on a parent saw it."""

    frame: bytes
    outgoing: bool
    """
    Whether it left this host by the parent: sent by ourselves, the host or a container. What a container sends to
    another one on the same parent alone comes *in*, as if it came from the wire.
    """


FrameHandler = Callable[[ReceivedFrame], None]


class LanSocket(Protocol):
    """
    The LAN of one parent. All of it is called, and calls back, in the reactor's thread.

    What is heard, of all who are on that LAN or on this host's parent: ARP, IPv6 neighbour discovery
    (solicitations and advertisements), and UDP to port 68 (answers of DHCP servers).
    """

    @property
    def parent(self) -> str: ...

    @property
    def mac(self) -> str:
        """
        The MAC under which we speak for ourselves: that of our own link on the parent, else the parent's.

        :raises LinkError: the parent is gone.
        """

    def send(self, frame: bytes) -> None:
        """
        Send an Ethernet frame, header included, with whatever source it names. It reaches the LAN and, where we have
        a link of our own on the parent, those siblings on the parent that are in bridge mode.

        :raises LinkError: the frame did not leave: the parent is down or gone.
        """

    def listen(self, hear: FrameHandler) -> Callable[[], None]:
        """
        Have *hear* called with each frame until what is returned is called. What we send ourselves may be among them: a
        packet socket does not hear what it sends, unless it comes back by the parent, as what is sent to a sibling does.
        """
