"""Short forms of the calls about pools and addresses."""

from __future__ import annotations

from itertools import count
from typing import Any

from twisted.python.failure import Failure

from macvlan_twisted.addresses import parse_address, parse_network
from macvlan_twisted.config import Config
from macvlan_twisted.ipam.requests import GrantedPool, Purpose, ReleaseAddress, RequestAddress, RequestPool
from macvlan_twisted.lan.address_monitor import LAST_LOOK

from .helpers import PluginHarness, PluginTestCase

_NUMBERS = count(1)


class AddressTestCase(PluginTestCase):
    def use(self, config: Config) -> None:
        self.plugin = PluginHarness(config=config)

    def open(self, pool: str | None = "192.168.1.0/24", part: str | None = None, **options: Any) -> str:
        return self.grant(pool, part, **options).pool_id

    def grant(
        self, pool: str | None, part: str | None = None, v6: bool | None = None, **options: str
    ) -> GrantedPool:
        network = None if pool is None else parse_network(pool)
        request = RequestPool(
            "Local",
            network,
            None if part is None else parse_network(part),
            options,
            v6 if v6 is not None else network is not None and network.version == 6,
        )
        return self.plugin.wait(self.plugin.pools.request_pool(request))

    def ask(
        self,
        pool_id: str,
        address: str | None = None,
        purpose: Purpose = Purpose.ENDPOINT,
        name: str | None = None,
    ) -> str:
        """:param name: of the container, which engine 29 sends; by default each has its own."""
        wanted = None if address is None else parse_address(address)
        if name is None:
            name = f"container-{next(_NUMBERS)}" if purpose is Purpose.ENDPOINT else ""
        request = RequestAddress(pool_id, wanted, purpose, name)
        asked = self.plugin.start(self.plugin.addresses.request_address(request))
        self.plugin.clock.advance(LAST_LOOK)  # nothing waits longer if addresses are prefetched
        outcome: list[Any] = []
        asked.addBoth(outcome.append)
        if not outcome:
            raise AssertionError("the call waits for something")
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()
        return str(outcome[0])

    def gateway(self, pool_id: str, address: str | None = None) -> str:
        return self.ask(pool_id, address, Purpose.GATEWAY)

    def release(self, pool_id: str, address: str) -> None:
        self.plugin.wait(
            self.plugin.addresses.release_address(ReleaseAddress(pool_id, parse_address(address)))
        )

    def close(self, pool_id: str) -> None:
        self.plugin.wait(self.plugin.pools.release_pool(pool_id))
