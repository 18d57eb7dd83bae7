"""
Which link a network's containers hang on, and what has to be made for it.

First the decision, as plain functions of what the user said and what the kernel shows; then
:class:`Parents`, which makes and removes VLANs and dummy links.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import frozen
from twisted.logger import Logger

from ..errors import LinkFailed, Refused, StateFailed
from ..lan.wires import Wires
from ..links.interface import ETH_P_8021Q, LinkFacts
from ..links.pool import Links
from ..names import alias_of, dummy_link_name, vlan_link_name
from ..records import to_document
from ..state.interface import HostRecords, Kind
from ..turns import Turns
from .known import Known
from .network import MadeLink, Network, VlanStep
from .options import NetworkOptions, parse_vlan_id

_log = Logger(namespace="macvlan_twisted.driver")


@frozen
class ParentPlan:
    """The parent's name, and the VLANs on the way to it from the NIC, the lowest first."""

    parent: str
    vlan_steps: tuple[VlanStep, ...] = ()
    on_dummy: bool = False


def plan_parent(
    network_id: str,
    options: NetworkOptions,
    internal: bool,
    default_parent: str | None,
    links: Iterable[LinkFacts],
) -> ParentPlan:
    """
    :param links: those of the host now; what is missing among them has to be made.
    :raises Refused: with the builtin driver's words where it has them.
    """
    by_name = {link.name: link for link in links}
    name = options.parent or (None if internal else default_parent)
    if name is None:
        if options.vlan_id is not None:
            raise Refused(f"-o vlan_id={options.vlan_id} needs a NIC: name it with -o parent=")
        return ParentPlan(dummy_link_name(network_id), on_dummy=True)
    steps = _steps_to(name, by_name)
    if options.vlan_id is not None and not (
        steps and steps[-1].vlan_id == options.vlan_id and len(steps) == 1
    ):
        steps = (*steps, _vlan_on(steps[-1].link if steps else name, options.vlan_id, by_name))
    return ParentPlan(steps[-1].link if steps else name, steps)


def _steps_to(name: str, by_name: Mapping[str, LinkFacts]) -> tuple[VlanStep, ...]:
    """The VLANs of a dotted name that are to be made, or that are there and to be kept in mind."""
    link = by_name.get(name)
    if link is not None and link.vlan_id is None:
        return ()
    if link is not None:
        lower = next((each.name for each in by_name.values() if each.index == link.lower_index), None)
        return () if lower is None else (*_steps_to(lower, by_name), VlanStep(name, lower, link.vlan_id or 0))
    lower_name, dot, id_text = name.rpartition(".")
    if not dot or not lower_name:
        raise Refused(
            f"the requested parent interface {name} was not found on the Docker host: name one of "
            f"{', '.join(sorted(each for each in by_name if each != 'lo'))}, or a VLAN of it like eth0.10"
        )
    try:
        vlan_id = parse_vlan_id(id_text)
    except ValueError as error:
        raise Refused(f"-o parent={name}: {error}") from None
    below = _steps_to(lower_name, by_name)
    return (*below, _vlan_on(below[-1].link if below else lower_name, vlan_id, by_name, name))


def _vlan_on(
    lower: str, vlan_id: int, by_name: Mapping[str, LinkFacts], wanted: str | None = None
) -> VlanStep:
    """VLAN *vlan_id* of *lower*: a link that is it already, whatever its name, else one to be made."""
    lower_link = by_name.get(lower)
    if lower_link is not None:
        for each in by_name.values():
            # VLAN 20 of 802.1ad on the same NIC is another LAN.
            if (each.vlan_id, each.vlan_protocol, each.lower_index) == (
                vlan_id,
                ETH_P_8021Q,
                lower_link.index,
            ):
                return VlanStep(each.name, lower, vlan_id)
    return VlanStep(wanted or vlan_link_name(lower, vlan_id), lower, vlan_id)


def refuse_unfit(link: LinkFacts, options: NetworkOptions, mtu: int | None) -> None:
    """
    :raises Refused: the kernel or the LAN would not let containers on this parent talk.
    """
    if link.name == "lo":
        raise Refused("loopback interface is not a valid macvlan parent link: name a NIC on the LAN")
    if link.is_wireless and not options.force_wifi:
        raise Refused(
            f"parent {link.name} is a Wi-Fi interface: access points drop frames of MAC addresses that did not "
            "associate with them, so containers would not be heard; use a wired NIC, or -o force_wifi=true if "
            "your access point takes them (4-address mode)"
        )
    if link.bridge is not None:
        raise Refused(
            f"parent {link.name} is a port of bridge {link.bridge}, which takes its frames: use "
            f"-o parent={link.bridge}"
        )
    if mtu is not None and mtu > link.mtu:
        raise Refused(f"mtu {mtu} is more than the {link.mtu} of parent {link.name}: give at most {link.mtu}")


def refuse_sharing(network: Network, others: Iterable[Network]) -> None:
    """
    Any number of networks share a parent, unless one of them is passthru.

    :raises Refused: in the builtin driver's words, naming the other network.
    """
    for other in others:
        if other.parent != network.parent or other.network_id == network.network_id:
            continue
        if network.mode == "passthru":
            raise Refused(
                f"cannot use mode passthru, macvlan network {other.network_id} is already using parent interface "
                f"{network.parent}"
            )
        if other.mode == "passthru":
            raise Refused(
                f"macvlan network {other.network_id} is already using parent interface {network.parent} in mode "
                "passthru"
            )


class Parents:
    """VLANs and dummy links that we made: each is removed with the last network that uses it."""

    def __init__(self, links: Links, records: HostRecords, known: Known, wires: Wires) -> None:
        self._links = links
        self._wires = wires
        self._records = records
        self._known = known
        self._turns = Turns()
        self._made = known.made_links

    @property
    def made(self) -> Mapping[str, MadeLink]:
        return self._made

    async def ensure(self, network: Network) -> None:
        """Make what is missing on the way to the network's parent, and bring up what is down."""
        for wanted in _needed_by(network):
            await self._ensure_one(wanted)

    async def restore(self, network: Network) -> None:
        """
        Make again what we had made, and went with a reboot; a link of others is theirs to bring back.

        :raises Refused: the parent, or what it hangs on, is not there.
        """
        for wanted in _needed_by(network):
            if wanted.name in self._made:
                await self._ensure_one(wanted)
        if not self._links.exists(network.parent):
            raise Refused(f"link {network.parent} is not there")

    async def _ensure_one(self, wanted: MadeLink) -> None:
        async with self._turns.of(wanted.name):
            lower = await self._links.find(wanted.lower) if wanted.lower else None
            if wanted.lower:
                if lower is None:
                    raise Refused(
                        f"failed to find master interface {wanted.lower} on the Docker host, which VLAN "
                        f"{wanted.vlan_id} ({wanted.name}) is to be made on"
                    )
                if not lower.up:
                    await self._links.set_up(lower.name)
            present = await self._links.find(wanted.name)
            if present is None:
                await self._make(wanted)
                return
            if lower is not None and (present.vlan_id, present.lower_index) != (wanted.vlan_id, lower.index):
                raise Refused(
                    f"link {wanted.name} exists and is not VLAN {wanted.vlan_id} of {wanted.lower}: rename it, or "
                    "choose another one"
                )
            if wanted.kind == "dummy" and not self._links.is_ours(present):
                raise Refused(f"link {wanted.name} exists and is not ours: remove it")
            if not present.up:
                await self._links.set_up(wanted.name)

    async def _make(self, wanted: MadeLink) -> None:
        """The intent is on disk before the kernel is touched: what we made is known after a kill."""
        known = wanted.name in self._made
        self._made[wanted.name] = wanted
        alias = alias_of(self._records.instance, wanted.kind, wanted.name)
        try:
            if not known:
                await self._records.save(Kind.MADE_LINK, wanted.name, to_document(wanted))
            if wanted.kind == "vlan":
                await self._links.add_vlan(wanted.name, wanted.lower, wanted.vlan_id, alias)
            else:
                await self._links.add_dummy(wanted.name, alias, wanted.mtu)
        except BaseException:
            if not known:  # else it is ours still, and made again when the kernel lets us
                await self._forget(wanted.name)
            raise
        _log.info("parent link created: {link} ({kind})", link=wanted.name, kind=wanted.kind)

    async def _forget(self, name: str) -> None:
        """After a failure: a row too many is dropped at the next start, and the first error is the one to tell."""
        self._made.pop(name, None)
        try:
            await self._records.forget(Kind.MADE_LINK, name)
        except StateFailed as failure:
            _log.error("the row of link {link} stays: {reason}", link=name, reason=str(failure))

    async def drop_unused(self, network: Network) -> None:
        """
        Remove what was made for *network*, which is not known any more, and serves no other; the highest first.

        Waits for condemned links: the kernel keeps a parent busy while they live.
        """
        names = [step.link for step in reversed(network.vlan_steps)]
        names += [network.parent] if network.on_dummy else []
        for name in names:
            if name in self._made:
                await self._links.reaped()
                await self._drop_if_unused(name)

    async def drop_orphans(self) -> None:
        """Remove what was made for networks that are not there (any more), the highest first."""
        for name in sorted(self._made, key=self._height, reverse=True):
            try:
                await self._drop_if_unused(name)
            except LinkFailed as failure:
                _log.warn("{reason}", reason=str(failure))

    def _height(self, name: str) -> int:
        """How many links that we made lie below."""
        made = self._made.get(name)
        return 0 if made is None else 1 + self._height(made.lower)

    async def _drop_if_unused(self, name: str) -> None:
        """A network that comes meanwhile is known before it waits for its turn to make the link."""
        async with self._turns.of(name):
            if any(name in _links_of(network) for network in self._known.networks.values()):
                return
            present = await self._links.find(name)
            if present is not None and not self._links.is_ours(present):
                _log.warn("{link} was made by us and replaced by someone else: it stays", link=name)
            elif present is not None:
                await self._wires.vacate(name)
                await self._links.reaped()
                await self._refuse_foreign_upper(present)
                await self._links.delete(name)
                _log.info("unused link removed: {link}", link=name)
            self._made.pop(name, None)
            await self._records.forget(Kind.MADE_LINK, name)

    async def _refuse_foreign_upper(self, link: LinkFacts) -> None:
        upper = [each.name for each in await self._links.all() if each.lower_index == link.index]
        if upper:
            raise LinkFailed(f"{link.name} stays: {', '.join(upper)} of others hang on it")


def _needed_by(network: Network) -> list[MadeLink]:
    """What a network needs below its containers, the lowest first."""
    if network.on_dummy:
        return [MadeLink(network.parent, "dummy", mtu=network.mtu)]
    return [MadeLink(step.link, "vlan", step.lower, step.vlan_id) for step in network.vlan_steps]


def _links_of(network: Network) -> set[str]:
    return {network.parent, *(step.link for step in network.vlan_steps)}
