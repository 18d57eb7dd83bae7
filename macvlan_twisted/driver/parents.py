"""VLANs and dummy links that networks need: made, made again when their NIC comes back, and removed."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

from twisted.logger import Logger

from ..errors import LinkError, MacvlanError, RequestRefused, StateError
from ..keyed_lock import KeyedLock
from ..lan.packet_sockets import PacketSockets
from ..link_names import alias_of
from ..netlink.kernel import LinkFacts
from ..netlink.links import Links
from ..option_values import MacvlanMode
from .models import MadeLink, Network
from .parent_plan import links_of, lowest_missing, needed_by, refuse_unfit, suggest_parent
from .parent_status import ParentAbsent, ParentStatus
from .registry import Registry

_log = Logger(namespace="macvlan_twisted.driver")


class Parents:
    """
    The parents of networks: VLANs and dummy links are made on demand, and removed with the last network that uses them.

    :param locks: of links, by their names.
    """

    def __init__(
        self,
        links: Links,
        registry: Registry,
        sockets: PacketSockets,
        status: ParentStatus,
        locks: KeyedLock,
    ) -> None:
        self._links = links
        self._registry = registry
        self._sockets = sockets
        self.status = status
        self._locks = locks
        self._made = registry.made_links

    @property
    def made(self) -> Mapping[str, MadeLink]:
        return self._made

    def exists(self, parent: str) -> bool:
        return self._links.exists(parent)

    def load(self) -> None:
        """At start: the parents of all networks are in use."""
        for network in self._registry.networks.values():
            self._sockets.use(network.parent, network.network_id, alone=network.mode == MacvlanMode.PASSTHRU)

    async def acquire(self, network: Network) -> None:
        """
        Make the network's parent usable, and use it until :meth:`release`.

        :raises RequestRefused: the lower link is not there. :raises LinkError: the kernel refuses.
        """
        await self.ensure(network)
        if network.mode == MacvlanMode.PASSTHRU:
            await self._sockets.use_exclusively(network.parent, network.network_id)
        self._sockets.use(network.parent, network.network_id)

    async def release(self, network: Network) -> list[str]:
        """
        The network is gone: remove what was made for it alone. Goes on after an error.

        :return: what failed.
        """
        failures = []
        for step in (self._sockets.disuse(network.parent, network.network_id), self._drop_unused(network)):
            try:
                await step
            except (LinkError, StateError) as failure:
                failures.append(str(failure))
        return failures

    async def ensure(self, network: Network) -> None:
        """Make the missing links between the NIC and the network's parent, and bring up what is down."""
        for wanted in needed_by(network):
            await self._ensure_one(wanted)

    async def repair(self, parent: str, bring_up: bool = False) -> bool:
        """
        Make again what we had made for the networks on *parent*, and say once what is wrong with it.

        :param bring_up: whether to bring up what may have been taken down while we were not running.
        :return: whether it is there, and links can be made on it.
        :raises LinkError: the kernel refuses.
        """
        trouble, is_usable = "", True
        found: dict[Any, LinkFacts] = {}
        for network in self._networks_on(parent):
            way = (
                network.vlan_steps,
                *needed_by(network),
            )  # one check serves all networks with the same links
            try:
                link = found.get(way) or await self._restored(network, bring_up)
            except ParentAbsent as absent:
                waiting = len(self._networks_on(parent))
                if waiting:  # else the last one has gone meanwhile, and the parent with it
                    self.status.absent(absent, waiting)
                return False
            except RequestRefused as refused:
                self.status.unusable(parent, str(refused))
                return False
            found[way] = link
            try:
                _refuse_no_longer_fit(link, network)
            except RequestRefused as refused:
                trouble = trouble or f"network {self._registry.names.network(network.network_id)}: {refused}"
                is_usable = link.bridge is None
        if trouble:
            self.status.unusable(parent, trouble)
        else:
            self.status.available(parent)
        return is_usable and self._links.exists(parent)

    def _networks_on(self, parent: str) -> list[Network]:
        return [
            each
            for each in self._registry.networks.values()
            if each.parent == parent and each.network_id not in self._registry.in_creation
        ]

    async def restore(self, network: Network) -> None:
        """
        Make our own links again. A link that others made is theirs to bring back.

        :raises RequestRefused: the parent is not what the network was made on. :raises ParentAbsent: it is not there.
        """
        try:
            _refuse_no_longer_fit(await self._restored(network), network)
        except ParentAbsent as absent:
            raise ParentAbsent(absent.parent, absent.missing, self.status.why_absent(absent.parent)) from None

    async def _restored(self, network: Network, bring_up: bool = False) -> LinkFacts:
        """
        :return: the parent.
        :raises ParentAbsent: a link of others is not there.
        """
        self._refuse_absent(network)
        try:
            for wanted in needed_by(network):
                await self._make_again(wanted, bring_up)
        except MacvlanError:
            self._refuse_absent(network)  # it has gone meanwhile
            raise
        parent = await self._links.find(network.parent)
        if parent is None:
            raise ParentAbsent(network.parent, network.parent)
        return parent

    def _refuse_absent(self, network: Network) -> None:
        missing = lowest_missing(network, self._links.exists)
        if missing and missing not in self._made:
            raise ParentAbsent(network.parent, missing)

    async def _make_again(self, wanted: MadeLink, bring_up: bool) -> None:
        async with self._locks.acquire(wanted.name):
            if (
                wanted.name in self._made
            ):  # otherwise it is not ours, or was just removed with its last network
                await self._ensure_in_turn(wanted, bring_up)

    async def _ensure_one(self, wanted: MadeLink) -> None:
        async with self._locks.acquire(wanted.name):
            await self._ensure_in_turn(wanted, bring_up=True)

    async def _ensure_in_turn(self, wanted: MadeLink, bring_up: bool) -> None:
        present = await self._links.find(wanted.name)
        lower = await self._links.find(wanted.lower) if wanted.lower else None
        if wanted.lower and lower is None:
            if present is not None:
                return  # its lower link was renamed
            raise RequestRefused(
                f"failed to find master interface {wanted.lower} on the Docker host for VLAN "
                f"{wanted.vlan_id}: {suggest_parent(wanted.lower, await self._links.all())}"
            )
        if present is not None and await self._is_removed_as_astray(present, lower, wanted):
            present = None
        if lower is not None and not lower.up and (bring_up or present is None):
            await self._links.set_up(lower.name)
        if present is None:
            await self._make(wanted)
        elif bring_up and not present.up:
            await self._links.set_up(wanted.name)

    async def _is_removed_as_astray(
        self, present: LinkFacts, lower: LinkFacts | None, wanted: MadeLink
    ) -> bool:
        """
        Remove a VLAN of ours from a NIC that has lost its name to another one, unless somebody is on it.

        :raises RequestRefused: *present* is not the link that is wanted, and stays.
        """
        is_ours = self._links.is_ours(present)
        if lower is None:
            if not is_ours:
                raise RequestRefused(f"link {wanted.name} exists and belongs to another program: remove it")
            return False
        if (present.vlan_id, present.lower_index) == (wanted.vlan_id, lower.index):
            return False
        if not is_ours:
            raise RequestRefused(
                f"link {wanted.name} exists and is not VLAN {wanted.vlan_id} of {wanted.lower}: rename or "
                "remove it, or use another VLAN"
            )
        every = await self._links.all(complete=True)
        upper = [each for each in every if each.lower_index == present.index]
        if any(not self._links.is_ours(each) for each in upper) or self._has_containers(wanted.name):
            # Remedy: stop the containers on this VLAN and remove other programs' links from it; the plugin then creates the
            # VLAN again on LOWER.
            raise RequestRefused(
                f"VLAN {wanted.name} is on the wrong NIC, because NICs were renamed and {wanted.lower} is another NIC "
                "now: stop the containers on it; the plugin then creates the VLAN again"
            )
        await self._sockets.vacate(wanted.name)
        await self._links.deletions_finished()
        await self._links.delete(wanted.name)
        return True

    def _has_containers(self, name: str) -> bool:
        return any(
            name in links_of(network) and self._registry.endpoints_of(network.network_id)
            for network in self._registry.networks.values()
        )

    async def _make(self, wanted: MadeLink) -> None:
        """The intent is on disk before the kernel is touched, so that the link is known to be ours after a kill."""
        is_known = wanted.name in self._made
        self._made[wanted.name] = wanted
        alias = alias_of(self._registry.instance, wanted.kind, wanted.name)
        try:
            if not is_known:
                await self._registry.store_made_link(wanted)
            if wanted.kind == "vlan":
                await self._links.add_vlan(wanted.name, wanted.lower, wanted.vlan_id, alias)
            else:
                await self._links.add_dummy(wanted.name, alias, wanted.mtu)
        except BaseException as failure:
            # Otherwise the row stays: a link of ours has a row while it exists, and is made again once the kernel allows it.
            if not is_known and not self._links.exists(wanted.name):
                await self._forget(wanted.name)
            if isinstance(failure, LinkError) and failure.errno == errno.EOPNOTSUPP:
                raise _module_missing(wanted) from failure
            raise
        _log.debug("parent {parent}: created ({kind})", parent=wanted.name, kind=wanted.kind)

    async def _forget(self, name: str) -> None:
        """After a failure. The caller raises the first error; the next start erases a row that stays."""
        self._made.pop(name, None)
        try:
            await self._registry.erase_made_link(name)
        except StateError as failure:
            # Cause: writing the state failed. Remedy: free space on the disk of the state directory; the plugin tries
            # again at its next start.
            _log.error(
                "parent {parent}: cannot be deleted from the state ({reason})",
                parent=name,
                reason=str(failure),
            )

    async def _drop_unused(self, network: Network) -> None:
        """
        Remove what was made for *network*, which is not known any more, and serves no other; the highest first.

        Waits for retired links: the kernel keeps a parent busy while they live.
        """
        names = [step.link for step in reversed(network.vlan_steps)]
        names += [network.parent] if network.on_dummy else []
        for name in names:
            if name in self._made:
                await self._links.deletions_finished()
                await self._drop_if_unused(name)
        if all(each.parent != network.parent for each in self._registry.networks.values()):
            self.status.forget(network.parent)

    async def drop_orphans(self) -> None:
        """
        Remove what was made for networks that are not there (any more), the highest first.

        Networks may be missing in a state that was rebuilt, those of another engine for instance: while links of ours are in
        containers that nobody here knows, all stays that they may hang on.
        """
        used = {name for network in self._registry.networks.values() for name in links_of(network)}
        if self._made.keys() <= used:
            return
        strangers = await self._strangers()
        if strangers:
            # Cause: the state was rebuilt from one engine, and the networks of another engine are missing from it.
            # Remedy: remove the containers of these endpoints, then restart the plugin.
            _log.warn(
                "parents {links}: not removed although no network in the state uses them; containers of another engine may "
                "use them (endpoints {endpoints})",
                links=", ".join(sorted(self._made.keys() - used)),
                endpoints=", ".join(each[:12] for each in strangers),
            )
            return
        for name in sorted(self._made, key=self._height, reverse=True):
            try:
                await self._drop_if_unused(name)
            except LinkError as failure:
                # Cause: another program uses the link, or the kernel refused. Remedy: remove what uses it; the plugin
                # removes the link at its next start.
                _log.warn(
                    "parent {parent}: not removed although no network uses it ({reason})",
                    parent=name,
                    reason=str(failure),
                )

    async def _strangers(self) -> list[str]:
        """The ids of unknown endpoints whose links are in other namespaces."""
        prefix = alias_of(self._registry.instance, "endpoint", "")
        try:
            elsewhere = await self._links.elsewhere()
        except LinkError as failure:
            _log.debug("links in other network namespaces: cannot be listed ({reason})", reason=str(failure))
            return []
        found = {each.alias.removeprefix(prefix) for each in elsewhere if each.alias.startswith(prefix)}
        return sorted(found - self._registry.endpoints.keys())

    def _height(self, name: str) -> int:
        """The number of links of ours below this one."""
        made = self._made.get(name)
        return 0 if made is None else 1 + self._height(made.lower)

    async def _drop_if_unused(self, name: str) -> None:
        """A network that is created meanwhile is in the registry before it waits for the lock."""
        async with self._locks.acquire(name):
            if any(name in links_of(network) for network in self._registry.networks.values()):
                return
            present = await self._links.find(name)
            if present is not None and not self._links.is_ours(present):
                # Cause: another program removed the plugin's VLAN or dummy link and created another one with the same
                # name. Remedy: none needed; remove the link if it is not in use.
                _log.warn("parent {parent}: not removed, because another link has this name now", parent=name)
            elif present is not None:
                await self._sockets.vacate(name)
                await self._links.deletions_finished()
                await self._refuse_foreign_upper(present)
                await self._links.delete(name)
                _log.debug("parent {parent}: removed, no network uses it", parent=name)
            self._made.pop(name, None)
            await self._registry.erase_made_link(name)

    async def _refuse_foreign_upper(self, link: LinkFacts) -> None:
        every = await self._links.all(complete=True)
        upper = [each.name for each in every if each.lower_index == link.index]
        if upper:
            raise LinkError(
                f"link {link.name} is in use by links of another program ({', '.join(upper)}): remove those links first"
            )


def _module_missing(wanted: MadeLink) -> LinkError:
    if wanted.kind == "vlan":
        return LinkError(
            f"VLAN {wanted.vlan_id} of {wanted.lower} cannot be created, because the kernel's module for VLANs is not loaded: "
            "run modprobe 8021q on the host",
            errno.EOPNOTSUPP,
        )
    return LinkError(
        f"dummy link {wanted.name} for an internal network cannot be created, because the kernel's module for dummy links is not "
        "loaded: run modprobe dummy on the host, or name a NIC with -o parent=",
        errno.EOPNOTSUPP,
    )


def _refuse_no_longer_fit(parent: LinkFacts, network: Network) -> None:
    """:raises RequestRefused: the parent has changed since the network was made."""
    refuse_unfit(parent, network.allow_wireless_parent is not False, network.mtu)
