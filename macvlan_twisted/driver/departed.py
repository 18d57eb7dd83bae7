"""
What went away while nobody listened: endpoints whose removal the engine could not tell us, and gave up.

It tries each call for 15 seconds and then forgets the endpoint without a word (docs/reference/protocol). Then there is
nothing to hear, only something to see, and whatever might be in use is kept. So far this is for endpoints with DHCP
leases, which somebody else could use.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping

from twisted.logger import Logger

from ..addresses import IPAddress
from ..engine.api import EngineAbsent, EngineRefused, Listing
from ..errors import MacvlanError
from ..ipam.calls import AddressManagement
from ..lan.leases import Leases
from ..links.pool import Links
from . import requests
from .endpoints import Endpoints
from .known import Known
from .network import Endpoint
from .presence import Presence

_log = Logger(namespace="macvlan_twisted.driver")

SETTLING = 20.0
"""After so many seconds the engine has told us what it had begun before our start, or has given up: it tries for 15."""
BETWEEN_LOOKS = 5.0
NEVER_CAME = 120.0
"""After so many seconds an address that was handed out before our start, and has no endpoint, will not get one."""
LONGEST_WAIT = 300.0
"""Between questions to an engine that is absent; the first wait is as between looks."""


class Departed:
    """
    Looks once after the start, in the background.

    :param wait: waits for some seconds.
    :param stopping: whether the service ends; what is cancelled then looks as if the engine were absent.
    """

    def __init__(
        self,
        known: Known,
        links: Links,
        presence: Presence,
        endpoints: Endpoints,
        addresses: AddressManagement,
        leases: Leases,
        engine: Listing,
        wait: Callable[[float], Awaitable[object]],
        stopping: Callable[[], bool],
    ) -> None:
        self._known = known
        self._links = links
        self._endpoints = endpoints
        self._addresses = addresses
        self._leases = leases
        self._engine = engine
        self._wait = wait
        self._stopping = stopping
        self._suspects = {
            endpoint.endpoint_id: endpoint
            for endpoint in known.endpoints.values()
            if presence.lease_of(endpoint) is not None
        }
        self._in_host = {id_ for id_, each in self._suspects.items() if links.exists(each.link)}
        presence.when_joined.append(lambda endpoint: self._acquit((endpoint.endpoint_id,)))

    def _acquit(self, endpoint_ids: Iterable[str]) -> None:
        for each in endpoint_ids:
            self._suspects.pop(each, None)

    async def release_endpoints(self) -> None:
        """Let go of endpoints that are gone, with their leases and addresses."""
        if not self._suspects:
            return
        await self._wait(SETTLING)
        for endpoint in self._still_known(self._in_host):
            if self._links.exists(endpoint.link):
                await self._release(endpoint, "its link came back from the container")
        gone = await self._unlisted_twice()
        for endpoint in self._still_known(gone):
            if not self._links.exists(endpoint.link):
                await self._release(endpoint, "the engine does not know it any more")

    def _still_known(self, endpoint_ids: Iterable[str]) -> list[Endpoint]:
        self._acquit([each for each in self._suspects if each not in self._known.endpoints])
        return [self._suspects[each] for each in endpoint_ids if each in self._suspects]

    async def _unlisted_twice(self) -> set[str]:
        delay, before = BETWEEN_LOOKS, None
        while not self._stopping():
            self._still_known(())
            if not self._suspects:
                break
            try:
                unlisted = await self._unlisted()
            except EngineAbsent:
                before, next_delay = None, min(delay * 2, LONGEST_WAIT)
            else:
                if before is not None:
                    return before & unlisted
                if not unlisted:
                    break
                before, delay, next_delay = unlisted, BETWEEN_LOOKS, BETWEEN_LOOKS
            if self._stopping():
                break
            await self._wait(delay)
            delay = next_delay
        return set()

    async def _unlisted(self) -> set[str]:
        """Suspects that the engine does not count among the endpoints of their network."""
        unlisted = set()
        for network_id in {each.network_id for each in self._suspects.values()}:
            try:
                listed = await self._engine.endpoints_of(network_id)
            except EngineRefused as refusal:  # another engine's, perhaps: nothing is said of its endpoints
                _log.info(
                    "whether endpoints of network {network} are alive is not known: {reason}",
                    network=network_id[:12],
                    reason=str(refusal),
                )
                continue
            unlisted |= {
                id_
                for id_, each in self._suspects.items()
                if each.network_id == network_id and id_ not in listed
            }
        return unlisted

    async def _release(self, endpoint: Endpoint, why: str) -> None:
        _log.info(
            "endpoint {endpoint} of network {network} went away while the plugin was down ({why}): what it had is free",
            endpoint=endpoint.short_id,
            network=endpoint.network_id[:12],
            why=why,
        )
        self._acquit((endpoint.endpoint_id,))
        try:
            await self._endpoints.delete(requests.EndpointCall(endpoint.network_id, endpoint.endpoint_id))
            for address in endpoint.known_addresses:
                if not self._is_anybodys(endpoint.parent, address):
                    await self._addresses.release_of(endpoint.parent, address)
        except MacvlanError as failure:
            _log.error(
                "endpoint {endpoint} cannot be let go: {reason}",
                endpoint=endpoint.short_id,
                reason=str(failure),
            )

    def _is_anybodys(self, parent: str, address: IPAddress) -> bool:
        return self._leases.of_address(parent, address) is not None or any(
            each.parent == parent and address in each.known_addresses
            for each in self._known.endpoints.values()
        )

    async def release_addresses(self) -> None:
        """Give leased addresses back that were handed out before our start, and for which no endpoint ever came."""
        waiting = self._without_endpoint()
        if not waiting:
            return
        await self._wait(NEVER_CAME)
        unclaimed = self._without_endpoint()
        for (parent, address), mac in waiting.items():
            if unclaimed.get((parent, address), "another one") != mac:
                continue
            _log.info(
                "address {address} on {parent} was handed out before the start, and no container came for it: it is "
                "given back",
                address=address,
                parent=parent,
            )
            try:
                await self._addresses.release_of(parent, address)
            except MacvlanError as failure:
                _log.error(
                    "address {address} cannot be given back: {reason}", address=address, reason=str(failure)
                )

    def _without_endpoint(self) -> Mapping[tuple[str, IPAddress], str]:
        """Addresses of our address management, each with the MAC under which it is leased, if it is."""
        taken = {
            (endpoint.parent, address)
            for endpoint in self._known.endpoints.values()
            for address in endpoint.known_addresses
        }
        found = {}
        for parent, address in self._addresses.leased():
            if (parent, address) not in taken:
                lease = self._leases.of_address(parent, address)
                found[parent, address] = "" if lease is None else lease.mac
        return found
