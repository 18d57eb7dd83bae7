"""Whether addresses are free on the LANs of our parents: asked, held for somebody, and watched over once given."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any, Protocol

from attrs import frozen
from twisted.logger import Logger

from ..addresses import IPAddress, IPNetwork
from ..errors import LinkError, StateError
from ..netlink.links import Links
from .address_monitor import AddressMonitor
from .address_probe import Evidence, Free, Inconclusive, ProbeTiming, Taken, Verdict
from .conflict_table import RETRY_SECONDS, Conflict, ConflictTable
from .packet_sockets import PacketSockets

_log = Logger(namespace="macvlan_twisted.lan")

RETRY_PROBED_SECONDS = 5.0
"""After this time an address is looked at again that another one had only asked for: it has it by then, or left it."""


class AllocatedAddresses(Protocol):
    """The addresses of our own address management: :class:`~macvlan_twisted.ipam.pool_registry.PoolRegistry`."""

    def is_allocated(self, parent: str, address: IPAddress) -> bool:
        """Whether *address* is allocated to a container on *parent*."""


def _ignore(parent: str, address: IPAddress) -> None:
    pass


@frozen
class _Held:
    holder: str
    is_guess: bool
    on_lost: Callable[[str, IPAddress], None]


@frozen
class _Given:
    mac: str
    is_hosts: bool
    is_managed: bool


class Conflicts:
    """
    One for all parents. What it says of an address holds from then on until :meth:`let_go` or :meth:`gone`.

    :param clock: ``IReactorTime``
    """

    def __init__(
        self,
        wires: PacketSockets,
        links: Links,
        others: ConflictTable,
        allocated: AllocatedAddresses,
        timing: ProbeTiming,
        clock: Any,
        random: Random,
    ) -> None:
        self._wires = wires
        self._links = links
        self._timing = timing
        self._clock = clock
        self._random = random
        self.others = others
        self._allocated = allocated
        self._watches: dict[str, AddressMonitor] = {}
        self._given: dict[tuple[str, IPAddress], _Given] = {}
        self._holders: dict[tuple[str, IPAddress], _Held] = {}
        """For whom an address is held that no container was given yet."""
        self._forgotten: dict[tuple[str, IPAddress], str] = {}
        self._interests: dict[str, tuple[str, IPNetwork]] = {}
        self._stop_interest: dict[str, Callable[[], None]] = {}
        self.unproven = 0
        """How many addresses were given to containers although it could not be found out whether they are free."""

    def load(self) -> None:
        """Read what is known of other hosts from state. Call it once, at start."""
        self.others.load()
        self._wires.listen_for_unused(self._forget_parent)

    def use(self, parent: str, user: str, prefix: IPNetwork) -> None:
        """Listen, once asked, for neighbours with addresses in *prefix*, on behalf of *user*, until :meth:`disuse`."""
        if parent and user not in self._interests:
            self._wires.use(parent, user)
            self._interests[user] = (parent, prefix)
            if parent in self._watches:
                self._stop_interest[user] = self._watches[parent].interested_in(prefix)

    async def disuse(self, user: str) -> None:
        """Succeeds when there was no such user."""
        interest = self._interests.pop(user, None)
        self._stop_interest.pop(user, _nothing)()
        if interest is not None:
            await self._wires.disuse(interest[0], user)

    async def watch(self, parent: str) -> AddressMonitor:
        """
        :raises LinkError: nothing can be heard on *parent*.
        """
        wire = await self._wires.ready(parent)
        watch = self._watches.get(parent)
        if watch is None:
            told = _Told(self, parent)
            watch = self._watches[parent] = AddressMonitor(
                wire, self._clock, self._random, told, self._timing
            )
            watch.start()
            for user, (where, prefix) in self._interests.items():
                if where == parent:
                    self._stop_interest[user] = watch.interested_in(prefix)
            for (where, address), given in self._given.items():
                if where == parent:
                    self._keep(watch, parent, address, given)
        return watch

    async def hold(
        self,
        parent: str,
        address: IPAddress,
        holder: str,
        *,
        of_many: bool = False,
        is_managed: bool = False,
        is_guess: bool = False,
        on_lost: Callable[[str, IPAddress], None] = _ignore,
    ) -> Verdict:
        """
        Find out whether *address* is free, and if it is, defend it from now on.

        Asked are the host itself, the LAN and the siblings on the parent. What could not be asked is
        :class:`~macvlan_twisted.lan.address_probe.Inconclusive`, never free.

        :param holder: for whom; what is held for another one is not free.
        :param is_guess: whether it is only thought to be needed: whoever needs it may have it.
        :param of_many: others will do as well: what a neighbour was heard with minutes ago is left to it, though it
            might not answer now; it may sleep.
        :param is_managed: asked by our address management, in whose books nobody has the address: a container of its
            networks that was given it was forgotten by the engine, and has to answer if it lives.
        :param on_lost: is called with parent and address when another host takes the address while it is held.
        """
        forgotten = self._given.get((parent, address)) if is_managed else None
        if (
            forgotten is not None
            and forgotten.is_managed
            and not self._allocated.is_allocated(parent, address)
        ):
            self.gone(parent, address)
        else:
            forgotten = None
        verdict = await self._verdict(parent, address, of_many)
        # Both may have asked before anything was known: the first one to come back here has it.
        held = self._holders.get((parent, address))
        is_anothers = held is not None and held.holder != holder and not held.is_guess
        if isinstance(verdict, Free) and (is_anothers or (parent, address) in self._given):
            verdict = Taken(self._wires.of(parent).mac, Evidence.OURS)
        if forgotten is not None and not isinstance(verdict, Free):
            self.given(parent, address, forgotten.mac, is_managed=True)
        elif forgotten is not None:
            self._forgotten[parent, address] = forgotten.mac
        if isinstance(verdict, Taken):
            if verdict.how is Evidence.OURS:
                self.others.rest(parent, address)
            elif verdict.how is Evidence.PROBED:
                self.others.have(parent, address, verdict.mac, verdict.how.value, RETRY_PROBED_SECONDS)
            else:
                self.others.have(parent, address, verdict.mac, verdict.how.value)
        elif isinstance(verdict, Free):
            if held is None or not is_guess:
                self._holders[parent, address] = _Held(holder, is_guess, on_lost)
            self.others.forget(parent, address)
        return verdict

    async def _verdict(self, parent: str, address: IPAddress, of_many: bool) -> Verdict:
        if not parent:
            return Inconclusive(
                "no parent is known: name it with --ipam-opt parent=, or start with --host-interface"
            )
        try:
            link = (await self._links.host_addresses()).get(address)
            if link is not None:
                found = await self._links.find(link)
                return Taken("" if found is None else found.mac, Evidence.HOST)
            if self._allocated.is_allocated(parent, address):
                return Taken(self._wires.of(parent).mac, Evidence.OURS)
            watch = await self.watch(parent)
            heard = watch.known(address) if of_many else None
            if heard is not None:
                return Taken(heard.mac, Evidence.HEARD)
            return await watch.hold(address, self._wires.of(parent).mac)
        except (LinkError, StateError) as failure:  # our own link, by which is listened, needs a row
            return Inconclusive(str(failure))

    def let_go(self, parent: str, address: IPAddress, holder: str | None = None) -> None:
        """:param holder: for whom it was held; without one, for whomever."""
        held = self._holders.get((parent, address))
        if (parent, address) in self._given or (
            holder is not None and (held is None or held.holder != holder)
        ):
            return
        self._holders.pop((parent, address), None)
        watch = self._watches.get(parent)
        if watch is not None:
            watch.let_go(address)

    def given(
        self,
        parent: str,
        address: IPAddress,
        mac: str,
        is_hosts: bool = False,
        is_managed: bool = False,
    ) -> None:
        """
        A container has *address* under *mac* (empty: that of the parent itself): from now on others that use it are
        told of.

        :param is_hosts: whether it is not a container's, but the host's own: the host answers for it under the parent's
            MAC, too.
        :param is_managed: whether our own address management has handed it out.
        """
        self._given[parent, address] = given = _Given(mac, is_hosts, is_managed)
        self._holders.pop((parent, address), None)
        self._forgotten.pop((parent, address), None)
        watch = self._watches.get(parent)
        if watch is not None:
            self._keep(watch, parent, address, given)

    def _keep(self, watch: AddressMonitor, parent: str, address: IPAddress, given: _Given) -> None:
        with suppress(LinkError):  # the parent is away: nobody claims anything there
            watch.keep_for(address, given.mac or self._wires.of(parent).mac, given.is_hosts)

    def mac_given(self, parent: str, address: IPAddress) -> str | None:
        """Under which MAC *address* was given to a container, ``None`` if it was not."""
        given = self._given.get((parent, address))
        return None if given is None else given.mac

    def mac_forgotten(self, parent: str, address: IPAddress) -> str | None:
        """Under which MAC a container had *address* that the engine has forgotten, until another one is given it."""
        return self._forgotten.get((parent, address))

    def gone(self, parent: str, address: IPAddress, link_removed: bool = False) -> None:
        """
        The container has gone.

        :param link_removed: for certain: its link was taken away by us.
        """
        self._given.pop((parent, address), None)
        self._holders.pop((parent, address), None)
        watch = self._watches.get(parent)
        if watch is not None:
            watch.let_go(address, link_removed)
        if self.others.contested_by(parent, address) is not None:
            self.others.forget(parent, address)

    def count_unproven(self, parent: str, address: IPAddress, reason: str) -> None:
        self.unproven += 1
        _log.warn(
            "address {address} is handed out although it is not known whether it is in use on {parent}: {reason} "
            "({number} such addresses since the start)",
            address=address,
            parent=parent or "any parent",
            reason=reason,
            number=self.unproven,
        )

    def close(self) -> None:
        for watch in self._watches.values():
            watch.close()
        self._watches.clear()

    def _forget_parent(self, parent: str) -> None:
        """Nobody uses the parent any more: what is known of others on its LAN is of no use."""
        watch = self._watches.pop(parent, None)
        if watch is not None:
            watch.close()
        self._holders = {key: holder for key, holder in self._holders.items() if key[0] != parent}
        self.others.forget_within(parent)

    def lost(self, parent: str, address: IPAddress, mac: str) -> None:
        self.others.have(parent, address, mac, "took it while it was kept free")
        held = self._holders.get((parent, address))
        if held is not None:
            held.on_lost(parent, address)

    def parent_mac(self, parent: str) -> str:
        return self._wires.of(parent).parent_mac

    def contested(self, parent: str, address: IPAddress, ours: str, theirs: str) -> None:
        given = self._given.get((parent, address))
        is_hosts = given is not None and given.is_hosts
        _log.error(
            "address {address} of {whose} with MAC {ours} is used by MAC {theirs} on {parent}, too: find that host, "
            "and give it or the {which} another address",
            address=address,
            whose="the host itself, for its containers," if is_hosts else "a container",
            which="host (-o host_address)" if is_hosts else "container",
            ours=ours,
            theirs=theirs,
            parent=parent,
        )
        self.others.use(parent, address, theirs, ours)


def _nothing() -> None:
    pass


@frozen
class _Told:
    """What the watch of one parent has seen, with the parent's name to it."""

    conflicts: Conflicts
    parent: str

    def contested(self, address: IPAddress, our_mac: str, foreign_mac: str) -> None:
        self.conflicts.contested(self.parent, address, our_mac, foreign_mac)

    def lost(self, address: IPAddress, mac: str) -> None:
        self.conflicts.lost(self.parent, address, mac)

    def host_mac(self) -> str:
        return self.conflicts.parent_mac(self.parent)


__all__ = ["RETRY_SECONDS", "Conflict", "Conflicts", "Free", "Inconclusive", "Taken", "Verdict"]
