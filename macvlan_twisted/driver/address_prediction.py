"""
Predicts which addresses the engine's own IPAM driver will hand out next, so that they are probed by then.

That driver hands out the lowest free address, or the one after the last (both were seen). So the addresses after the last
one are expected, and those that have just been released.
"""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.defer import ensureDeferred
from twisted.logger import Logger

from ..addresses import IPAddress
from ..lan.conflicts import Conflicts, Holder
from ..option_values import ConflictDetection
from .models import Network
from .registry import Registry

_log = Logger(namespace="macvlan_twisted.driver")

AFTER_THE_LAST = 4
MOST = 8
"""Of one network and address family. Expected addresses are defended on the LAN, so other hosts cannot use them."""


class AddressPrediction:
    """Holds the expected addresses until their network is removed."""

    def __init__(self, conflicts: Conflicts, registry: Registry) -> None:
        self._conflicts = conflicts
        self._registry = registry
        self._expected: dict[tuple[str, int], dict[IPAddress, None]] = {}

    def assigned(self, network: Network, address: IPAddress) -> None:
        """The engine has handed out *address*."""
        self._of(network, address).pop(address, None)
        for following in self._after(network, address):
            self._expect(network, following)

    def unassigned(self, network: Network, address: IPAddress) -> None:
        """The endpoint with *address* is gone."""
        if self._is_predictable(network, address):
            self._expect(network, address)

    def forget(self, network: Network) -> None:
        for version in (4, 6):
            for address in self._expected.pop((network.network_id, version), {}):
                self._conflicts.release(network.parent, address, network.network_id)

    def _of(self, network: Network, address: IPAddress) -> dict[IPAddress, None]:
        return self._expected.setdefault((network.network_id, address.version), {})

    @staticmethod
    def _is_predictable(network: Network, address: IPAddress) -> bool:
        subnet = network.subnet_of(address)
        return (
            network.conflict_detection != ConflictDetection.OFF
            and subnet is not None
            and not subnet.managed_here
            and not subnet.null_ipam
        )

    def _after(self, network: Network, address: IPAddress) -> Iterator[IPAddress]:
        subnet = network.subnet_of(address)
        if subnet is None or not self._is_predictable(network, address):
            return
        reserved = {subnet.gateway, *subnet.auxiliary.values()}
        taken = {
            each
            for endpoint in self._registry.endpoints_of(network.network_id)
            for each in endpoint.addresses
        }
        last = int(subnet.pool.broadcast_address) - (subnet.pool.version == 4)
        found = 0
        for number in range(int(address) + 1, min(int(address) + 64, last + 1)):
            following = type(address)(number)
            if following not in reserved and following not in taken:
                yield following
                found += 1
            if found == AFTER_THE_LAST:
                return

    def _expect(self, network: Network, address: IPAddress) -> None:
        expected = self._of(network, address)
        if address in expected:
            return
        expected[address] = None
        if len(expected) > MOST:
            oldest = next(iter(expected))
            del expected[oldest]
            self._conflicts.release(network.parent, oldest, network.network_id)
        ensureDeferred(self._hold(network, address)).addErrback(
            lambda failure: _log.failure("address prediction: failed", failure=failure)
        )

    async def _hold(self, network: Network, address: IPAddress) -> None:
        await self._conflicts.hold(network.parent, address, Holder(network.network_id, is_guess=True))
        if address not in self._expected.get((network.network_id, address.version), {}):
            is_given = any(
                address in endpoint.addresses for endpoint in self._registry.endpoints_of(network.network_id)
            )
            if not is_given:
                self._conflicts.release(network.parent, address, network.network_id)
