"""The interface to one parent's LAN: send frames, and receive those of others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from attrs import frozen

from ..addresses import IPAddress


@frozen
class ReceivedFrame:
    """An Ethernet frame without a VLAN tag, as the packet socket on a parent received it."""

    frame: bytes
    outgoing: bool
    """
    Whether it left this host by the parent: we, the host or a container sent it. A frame from one container to another
    on the same parent counts as incoming, as if it came from the LAN.
    """


FrameHandler = Callable[[ReceivedFrame], None]
AddressesOf = Callable[[], Iterable[IPAddress]]


def no_addresses() -> Iterable[IPAddress]:
    """For a listener that does not need ARP and neighbour discovery during a storm."""
    return ()


class LanSocket(Protocol):
    """
    The LAN of one parent, for the reactor's thread.

    It receives ARP, IPv6 neighbour solicitations and advertisements, and UDP to port 68 (from DHCP servers), of all hosts
    on the LAN and of this host's links on the parent.
    """

    @property
    def parent(self) -> str: ...

    @property
    def mac(self) -> str:
        """
        The MAC of our frames: that of our own link on the parent, else the parent's.

        :raises LinkError: the parent is gone.
        """

    def send(self, frame: bytes) -> None:
        """
        Send an Ethernet frame with its header, from any source MAC. It reaches the LAN and, if we have a link of our own on
        the parent, the siblings in bridge mode.

        :raises LinkError: the frame was not sent: the parent is down or gone.
        """

    def listen(self, handler: FrameHandler, addresses: AddressesOf = no_addresses) -> Callable[[], None]:
        """
        Call *handler* with each frame. Our own frames may be among them: a packet socket does not receive what it sends, unless
        it returns by the parent, as a frame to a sibling does.

        :param addresses: returns the addresses about which *handler* needs every frame, even while the LAN is flooded with ARP
            or neighbour discovery. Meanwhile frames about other addresses may be dropped.
        :return: call it to stop listening.
        """

    def read(self) -> None:
        """Call the handlers with the frames that have arrived, without waiting for the reactor's turn."""
