"""Deletion of retired links on the real kernel, with real threads and the reactor."""

import gc
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from attrs import evolve, frozen
from twisted.internet.defer import ensureDeferred, gatherResults

from macvlan_twisted.errors import LinkError
from macvlan_twisted.netlink.kernel import Kernel, MacvlanLink, Marked
from macvlan_twisted.netlink.links import GROUPS, Links
from macvlan_twisted.worker_threads import WorkerThreads
from tests.integration.namespaced import NamespacedKernel, open_files
from tests.integration.on_reactor import on_reactor
from tests.lab.lan import Lan

GROUP = 70000
OURS = MacvlanLink("mvt", "eth1", "bridge", group=GROUP, alias="ours")


def is_ours(link: Marked) -> bool:
    """Whether the alias is ours."""
    return link.alias == "ours"


@frozen
class Host:
    """Links on the docker host of a LAN."""

    namespaced: NamespacedKernel
    kernel: Kernel
    threads: WorkerThreads
    deletion_thread: WorkerThreads
    links: Links
    batches: list[int]
    """How many links there were in each group when it was removed."""

    async def make(self, number: int) -> list[str]:
        """Make living links of ours."""
        names = [f"mvt{each}" for each in range(number)]
        await gatherResults(
            [self.threads(self.kernel.add_macvlan, evolve(OURS, name=name)) for name in names]
        )
        return names

    async def retire(self, names: list[str]) -> list[bool]:
        """Retire all of them at once."""
        return list(await gatherResults([ensureDeferred(self.links.retire(name)) for name in names]))

    def left(self) -> set[str]:
        """Return the names of the macvlan links."""
        return {link.name for link in self.kernel.links() if link.kind == "macvlan"}


@pytest.fixture
def host(lan: Lan) -> Iterator[Host]:
    """Give four threads and the links of an instance."""
    from twisted.internet import reactor

    batches: list[int] = []
    namespaced = NamespacedKernel(lan)
    real = NamespacedKernel(lan)

    def note(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "delete_group":
            batches.append(len(real.kernel.members_of_group(*arguments)))

    namespaced.before = note
    kernel = namespaced.kernel
    threads = WorkerThreads(reactor, 4, "netlink", kernel.close)
    deletion_thread = WorkerThreads(reactor, 1, "netlink deletion", kernel.close)
    threads.start()
    deletion_thread.start()
    links = Links(kernel, threads, deletion_thread, GROUP, is_ours, reactor)
    try:
        yield Host(namespaced, kernel, threads, deletion_thread, links, batches)
    finally:
        threads.stop()
        deletion_thread.stop()
        namespaced.close()
        real.close()


@on_reactor
async def test_retired_links_go_in_batches_of_at_most_64(host: Host) -> None:
    """The kernel holds its lock on links for a whole batch."""
    names = await host.make(200)
    assert await host.retire(names) == [True] * 200
    await host.links.deletions_finished()
    assert host.left() == set()
    assert sum(host.batches) == 200
    assert max(host.batches) <= 64
    assert len(host.batches) < 20, "hardly two went together"


@on_reactor
async def test_living_links_stay(host: Host) -> None:
    names = await host.make(20)
    assert await host.retire(names[:10]) == [True] * 10
    await host.links.deletions_finished()
    assert host.left() == set(names[10:])


@pytest.mark.parametrize("offset", range(1, GROUPS, 5))
@on_reactor
async def test_foreign_link_in_a_retired_group_stays(host: Host, offset: int) -> None:
    """The kernel removes whatever carries the group."""
    group = GROUP + offset
    host.kernel.add_macvlan(MacvlanLink("foreign", "eth1", "bridge", group=group, alias="another's"))
    host.kernel.add_macvlan(MacvlanLink("nameless", "eth1", "bridge", group=group))
    for start in range(0, 48, 3):  # as many batches as there are groups
        names = [f"mvt{start + each}" for each in range(3)]
        for name in names:
            host.kernel.add_macvlan(evolve(OURS, name=name))
        await host.retire(names)
        await host.links.deletions_finished()
    assert host.left() == {"foreign", "nameless"}


@on_reactor
async def test_links_that_vanished_do_not_block_the_others(host: Host, lan: Lan) -> None:
    """The engine moves a link back after Leave, but the kernel may have removed it with its namespace."""
    names = await host.make(30)
    for name in names[::3]:
        lan.run_in("host", "ip", "link", "delete", name)
    assert await host.retire(names) == [bool(number % 3) for number in range(30)]
    await host.links.deletions_finished()
    assert host.left() == set()


@on_reactor
async def test_link_can_be_retired_twice(host: Host) -> None:
    (name,) = await host.make(1)
    assert True in await host.retire([name] * 8)
    await host.links.deletions_finished()
    assert host.left() == set()


@on_reactor
async def test_refused_batch_is_deleted_one_by_one(host: Host, lan: Lan) -> None:
    """With lo in the group it cannot be removed whole, so ours go one by one."""
    names = await host.make(10)
    for group in range(GROUP + 1, GROUP + GROUPS):
        if group == GROUP + 1:
            lan.run_in("host", "ip", "link", "set", "lo", "group", str(group), "alias", "ours")
    await host.retire(names)
    await host.links.deletions_finished()
    assert host.left() == set()


@on_reactor
async def test_links_retired_by_an_earlier_process_are_deleted(host: Host) -> None:
    for number in range(100):
        group = GROUP + 1 + number % 5
        host.kernel.add_macvlan(evolve(OURS, name=f"mvt{number}", group=group))
    retired = [link for link in host.kernel.links() if host.links.is_retired(link)]
    assert len(retired) == 100
    host.links.adopt_retired(retired)
    names = [f"new{number}" for number in range(10)]
    for name in names:
        host.kernel.add_macvlan(evolve(OURS, name=name))
    await host.retire(names)
    await host.links.deletions_finished()
    assert host.left() == set()


@on_reactor
async def test_shutdown_closes_sockets_and_threads(host: Host) -> None:
    """Stopping waits for the batch in the kernel, and each thread takes its netlink socket along."""
    await host.retire(await host.make(64))
    await host.links.deletions_finished()
    assert host.left() == set()
    during = open_files()
    host.threads.stop()
    host.deletion_thread.stop()
    assert not [each.name for each in threading.enumerate() if "netlink" in each.name]
    gc.collect()
    assert open_files() < during


@on_reactor
async def test_link_that_cannot_change_group_is_deleted_directly(host: Host) -> None:
    names = await host.make(3)

    def refuse(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "set_group" and arguments[0] == names[1]:
            raise LinkError("a test said so")

    host.namespaced.before = refuse
    for name in (names[0], names[2]):
        assert await host.retire([name]) == [True]
    assert await host.links.retire(names[1])
    await host.links.deletions_finished()
    assert host.left() == set()


@on_reactor
async def test_refused_deletion_is_an_error(host: Host) -> None:
    (name,) = await host.make(1)

    def refuse(asked: str, arguments: tuple[Any, ...]) -> None:
        if asked in {"set_group", "delete"} and arguments[0] == name:
            raise LinkError("a test said so")

    host.namespaced.before = refuse
    with pytest.raises(LinkError, match="a test said so"):
        await host.links.retire(name)
    await host.links.deletions_finished()
    assert host.left() == {name}
