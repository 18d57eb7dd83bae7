"""What a host does with its addresses, as the fleet asks for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from attrs import frozen

from ..addresses import IPAddress
from .interfaces import Claim, ClaimState


@frozen
class AddressUse:
    """What this host does with one of its addresses."""

    state: ClaimState
    container: str = ""
    mac: str = ""


class AddressUsers(Protocol):
    """What this host does with its addresses: :class:`~macvlan_twisted.ipam.fleet_users.FleetUsers`."""

    def use_of(self, lan: str, address: IPAddress) -> AddressUse:
        """An address that is about to be allocated counts as used."""

    def take(self, lan: str, address: IPAddress) -> bool:
        """
        Stop holding *address* for the next container: its claim is about to end.

        :return: whether it is unused now; not if it is allocated, or about to be.
        """

    def is_shared(self, lan: str, address: IPAddress) -> bool:
        """Whether a pool reserves *address* as a gateway or auxiliary one."""

    def allocated(self) -> Iterable[tuple[str, IPAddress]]:
        """All addresses that containers and the host itself have."""

    def reserved(self) -> Iterable[tuple[str, IPAddress]]:
        """All gateways and auxiliary addresses."""

    def surplus(self) -> Iterable[tuple[str, IPAddress]]:
        """Addresses that are claimed, and not needed any more."""

    async def is_abandoned(self, claim: Claim) -> bool:
        """Whether nobody on the LAN has the address of *claim*, and no link here has its MAC."""

    async def is_silent(self, claim: Claim) -> bool:
        """Whether the LAN could be asked, and nobody has the address of *claim*. Without conflict detection it is not asked."""

    def refill(self) -> None:
        """The store can be asked: hold addresses for the next containers."""
