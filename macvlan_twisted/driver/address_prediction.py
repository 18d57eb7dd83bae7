"""
Predicts which addresses the engine's own IPAM driver will hand out next, so that they are probed by then.

That driver hands out the lowest free address (20.10, 26.1, 28.5), or the one after the last. So the addresses after the last
one are expected, and those that have just been released, the lowest of them first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from attrs import define, field
from twisted.internet.defer import ensureDeferred
from twisted.logger import Logger

from ..addresses import IPAddress, IPNetwork
from ..demand import Demand, burst_target, ready_target
from ..lan.conflicts import Conflicts, Holder
from ..option_values import ConflictDetection
from .models import Endpoint, Network, Subnet
from .registry import Registry

_log = Logger(namespace="macvlan_twisted.driver")


class AddressPrediction:
    """
    Holds the expected addresses until their network is removed.

    :param probe_seconds: the longest duration of a probe. :param clock: ``IReactorTime``
    """

    def __init__(self, conflicts: Conflicts, registry: Registry, probe_seconds: float, clock: Any) -> None:
        self._conflicts = conflicts
        self._registry = registry
        self._probe_seconds = probe_seconds
        self._clock = clock
        self._expected: dict[str, dict[IPNetwork, _ExpectedAddresses]] = {}
        """By network and subnet."""

    @contextmanager
    def requested(self, network: Network, address: IPAddress) -> Iterator[None]:
        """Surround the probe of *address*, which the engine has handed out. Those that follow it are probed at the same time."""
        expected = self._of(network, address)
        if expected is None:
            yield
            return
        expected.requested(address)
        with expected.demand.waiting():
            yield

    def released(self, network: Network, address: IPAddress) -> None:
        """The endpoint with *address* is gone."""
        expected = self._of(network, address)
        if expected is not None:
            expected.released(address)

    def forget(self, network: Network) -> None:
        for expected in self._expected.pop(network.network_id, {}).values():
            expected.close()

    def stop(self) -> None:
        """Leave no delayed call behind."""
        for of_network in self._expected.values():
            for expected in of_network.values():
                expected.demand.stop()

    def _of(self, network: Network, address: IPAddress) -> _ExpectedAddresses | None:
        """``None`` if the engine does not choose the addresses, or if they are not probed."""
        subnet = network.subnet_of(address)
        if (
            network.conflict_detection == ConflictDetection.OFF
            or subnet is None
            or subnet.managed_here
            or subnet.null_ipam
        ):
            return None
        of_network = self._expected.setdefault(network.network_id, {})
        if subnet.pool not in of_network:
            demand = Demand(self._probe_seconds, self._clock)
            of_network[subnet.pool] = _ExpectedAddresses(
                network, subnet, self._conflicts, self._registry, demand
            )
        return of_network[subnet.pool]


@define(eq=False)
class _ExpectedAddresses:
    """Those of one subnet. They are defended on the LAN, so other hosts cannot use them: hence the limits."""

    network: Network
    subnet: Subnet
    conflicts: Conflicts
    registry: Registry
    demand: Demand
    addresses: dict[IPAddress, None] = field(factory=dict)
    """The least likely one is first."""

    def requested(self, address: IPAddress) -> None:
        self.addresses.pop(address, None)  # it is the endpoint's from now on
        self.demand.note()
        self._expect(list(islice(self._following(address), (self._target() + 1) // 2)))

    def released(self, address: IPAddress) -> None:
        lower = sorted((each for each in self.addresses if int(each) < int(address)), key=int)
        self._expect([*lower, address])

    def close(self) -> None:
        self.demand.stop()
        self._give_back(list(self.addresses))

    def _following(self, address: IPAddress) -> Iterator[IPAddress]:
        """The free addresses after *address*."""
        unavailable = self._unavailable()
        last = int(self.subnet.pool.broadcast_address) - (self.subnet.pool.version == 4)
        number = int(address)
        while number < last:
            number += 1
            following = type(address)(number)
            if following not in unavailable:
                yield following

    def _unavailable(self) -> set[IPAddress]:
        reserved = {self.subnet.gateway, *self.subnet.auxiliary.values()}
        taken = {address for endpoint in self._endpoints() for address in endpoint.addresses}
        return {each for each in reserved | taken if each is not None}

    def _endpoints(self) -> list[Endpoint]:
        return self.registry.endpoints_of(self.network.network_id)

    def _target(self) -> int:
        """
        How many addresses to hold: twice the demand, since those after the last one are half of them. The others are
        released ones, and those that were expected before a user named an address elsewhere in the subnet.
        """
        free = self._size - len(self.subnet.auxiliary) - len(self._endpoints())
        return burst_target(self._size, 2 * self.demand.most(), free)

    @property
    def _size(self) -> int:
        return self.subnet.pool.num_addresses - 2

    def _expect(self, addresses: Sequence[IPAddress]) -> None:
        """:param addresses: the most likely one is first."""
        known = set(self.addresses)
        for address in reversed(addresses):
            self.addresses.pop(address, None)
            self.addresses[address] = None
        self._shrink()
        for address in addresses:
            if address in self.addresses and address not in known:
                ensureDeferred(self._hold(address)).addErrback(
                    lambda failure: _log.failure("address prediction: failed", failure=failure)
                )

    def _shrink(self) -> None:
        """Give back what is expected beyond the demand, now and when the demand falls."""
        excess = max(0, len(self.addresses) - self._target())
        self._give_back(list(self.addresses)[:excess])
        if len(self.addresses) > ready_target(self._size):
            self.demand.when_less(self._shrink)

    def _give_back(self, addresses: Sequence[IPAddress]) -> None:
        for address in addresses:
            del self.addresses[address]
            self._release(address)

    async def _hold(self, address: IPAddress) -> None:
        holder = Holder(self.network.network_id, is_guess=True)
        await self.conflicts.hold(self.network.parent, address, holder, of_many=True)
        if address not in self.addresses and address not in self._unavailable():
            self._release(address)

    def _release(self, address: IPAddress) -> None:
        self.conflicts.release(self.network.parent, address, self.network.network_id)
