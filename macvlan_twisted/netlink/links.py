"""Links without blocking: the kernel's functions on a pool of threads, and deletion in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from time import thread_time
from typing import Any

from twisted.logger import Logger

from ..addresses import IPAddress, IPInterface
from ..errors import LinkError
from ..worker_threads import RunInThread
from .batch_delete import BATCH_GROUPS, BatchDelete
from .kernel import HostRoute, Kernel, LinkFacts, MacvlanLink, Marked, NetnsLink

_log = Logger(namespace="macvlan_twisted.netlink")

GROUPS = 1 + BATCH_GROUPS
"""How many groups one instance uses: one for links in use, the rest for retired ones."""


class Links:
    """
    The links of one instance.

    :param run: runs a function of the kernel on a thread.
    :param run_deletion: the same on a thread of its own, for the removal of retired links.
    :param group: the group of our links in use; the groups that follow it are for retired ones.
    :param is_ours: whether this instance made a link.
    :param clock: ``IReactorTime``
    :param processor_time: how long the calling thread has kept a processor busy, in seconds.
    """

    def __init__(
        self,
        kernel: Kernel,
        run: RunInThread,
        run_deletion: RunInThread,
        group: int,
        is_ours: Callable[[Marked], bool],
        clock: Any,
        processor_time: Callable[[], float] = thread_time,
    ) -> None:
        self._kernel = kernel
        self._run = run
        self.group = group
        self.is_ours = is_ours
        self._batches = BatchDelete(kernel, run, run_deletion, group + 1, is_ours, clock, processor_time)

    async def prepare(self) -> None:
        """Do what the first change would have to do."""
        await self._run(self._kernel.prepare)

    def is_retired(self, link: LinkFacts) -> bool:
        return self._batches.is_retired_group(link.group)

    async def find(self, name: str) -> LinkFacts | None:
        return await self._run(self._kernel.find, name)

    def exists(self, name: str) -> bool:
        """Whether there is such a link in the host's namespace. It takes 5 us, so it needs no thread."""
        return self._kernel.exists(name)

    async def names(self) -> list[str]:
        return await self._run(self._kernel.names)

    async def elsewhere(self) -> list[NetnsLink]:
        """The links in other namespaces to which links of the host's were moved."""
        return await self._run(self._kernel.links_elsewhere)

    async def all(self, complete: bool = False) -> list[LinkFacts]:
        """:param complete: as for :meth:`~.kernel.Kernel.links`."""
        return await self._run(self._kernel.links, complete)

    async def add_macvlan(self, port: MacvlanLink, prove_mac_free: bool = False) -> None:
        await self._run(self._kernel.add_macvlan, port, prove_mac_free)

    async def read_macvlan(self, name: str) -> MacvlanLink | None:
        return await self._run(self._kernel.read_macvlan, name)

    async def add_vlan(self, name: str, lower: str, vlan_id: int, alias: str) -> None:
        await self._run(self._kernel.add_vlan, name, lower, vlan_id, self.group, alias)

    async def add_dummy(self, name: str, alias: str, mtu: int | None = None) -> None:
        await self._run(self._kernel.add_dummy, name, self.group, alias, mtu)

    async def host_addresses(self) -> dict[IPAddress, str]:
        """All addresses that the host itself has, each with the name of its link."""
        return await self._run(self._kernel.host_addresses)

    async def addresses_of(self, name: str) -> list[IPInterface]:
        """The addresses that the host itself has on a link."""
        return await self._run(self._kernel.addresses_of, name)

    async def configure(self, name: str, values: Mapping[str, str]) -> None:
        await self._run(self._kernel.configure, name, values)

    async def add_address(self, name: str, address: IPInterface) -> None:
        await self._run(self._kernel.add_address, name, address)

    async def delete_address(self, name: str, address: IPInterface) -> bool:
        return await self._run(self._kernel.delete_address, name, address)

    async def add_host_route(self, route: HostRoute) -> None:
        await self._run(self._kernel.add_host_route, route)

    async def delete_host_route(self, route: HostRoute) -> bool:
        return await self._run(self._kernel.delete_host_route, route)

    async def host_routes(self, link: str, protocol: int) -> list[HostRoute]:
        return await self._run(self._kernel.host_routes, link, protocol)

    async def set_up(self, name: str) -> None:
        await self._run(self._kernel.set_up, name)

    async def delete(self, name: str) -> bool:
        """Delete a link that we made, and wait until it is gone; ``False`` if it was gone already."""
        return await self._run(self._kernel.delete, name)

    async def retire(self, name: str) -> bool:
        """
        Retire a link that we made, to be deleted soon; ``False`` if it is gone already. Where the kernel refuses to retire
        it, it is deleted at once.
        """
        try:
            return await self._batches.retire(name)
        except LinkError as failure:
            # Cause: the kernel refused to change the link's group. Remedy: none needed.
            _log.warn(
                "link {link}: cannot be left for the next batch, removed immediately ({reason})",
                link=name,
                reason=str(failure),
            )
            return await self.delete(name)

    async def dispose(self, name: str) -> None:
        """Delete a link as :meth:`delete` does; where the kernel refuses, retire it."""
        try:
            await self.delete(name)
        except LinkError as failure:
            # Cause: the kernel refused. Remedy: none needed; the next batch removes it.
            _log.warn(
                "link {link}: cannot be removed immediately, left for the next batch ({reason})",
                link=name,
                reason=str(failure),
            )
            await self._batches.retire(name)

    def adopt_retired(self, links: Iterable[LinkFacts]) -> None:
        """Delete the links that an earlier life of this instance retired."""
        self._batches.adopt(links)

    async def deletions_finished(self) -> None:
        """Wait until every link that was retired so far is gone."""
        await self._batches.deletions_finished()
