"""Which link is a network's parent: pure functions of the options and the host's links."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from attrs import frozen

from ..display_names import DisplayNames
from ..errors import RequestRefused
from ..link_names import ALIAS_PREFIX, dummy_link_name, vlan_link_name
from ..netlink.kernel import ETH_P_8021Q, LinkFacts
from ..option_values import MacvlanMode, did_you_mean
from .models import MadeLink, Network, VlanStep
from .options import NetworkOptions, parse_vlan_id


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
    :raises RequestRefused: with words of the built-in driver's where it has them.
    """
    by_name = {link.name: link for link in links}
    name = options.parent or (None if internal else default_parent)
    if name is None:
        if options.vlan_id is not None:
            raise RequestRefused(f"-o vlan_id={options.vlan_id} needs a parent: name a NIC with -o parent=")
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
        raise RequestRefused(
            f"parent interface {name} was not found on the Docker host: "
            f"{suggest_parent(name, by_name.values())}"
        )
    try:
        vlan_id = parse_vlan_id(id_text)
    except ValueError as error:
        # Remedy: use a VLAN id from 1 to 4094 after the dot.
        raise RequestRefused(f"-o parent={name}: {error}") from None
    below = _steps_to(lower_name, by_name)
    return (*below, _vlan_on(below[-1].link if below else lower_name, vlan_id, by_name, name))


_NEVER_PARENTS = frozenset(
    {
        "macvlan",
        "macvtap",
        "ipvlan",
        "ipvtap",
        "tun",
        "wireguard",
        "sit",
        "gre",
        "ipip",
        "ip6tnl",
        "ip6gre",
        "vti",
        "vti6",
    }
)
"""Kinds of links that carry no macvlan links, or no Ethernet frames."""
_BRIDGE_OF_DOCKER = re.compile(r"docker0|docker_gwbridge|br-[0-9a-f]{12}")
_MOST_CANDIDATES = 8


def suggest_parent(name: str, links: Iterable[LinkFacts]) -> str:
    """
    What to do where there is no link *name*: the links of the host that can be a parent, and the nearest of them.

    :param links: those of the host.
    """
    candidates = sorted(each.name for each in links if _may_be_parent(each))
    if not candidates:
        return "create it first, this host has no link that can be a parent"
    more = ", ..." if len(candidates) > _MOST_CANDIDATES else ""
    listed = ", ".join(candidates[:_MOST_CANDIDATES]) + more
    return f"{did_you_mean(name, candidates)}use one of {listed}, or a VLAN on one of them, like {candidates[0]}.10"


def _may_be_parent(link: LinkFacts) -> bool:
    return (
        link.name != "lo"
        and link.kind not in _NEVER_PARENTS
        and link.bridge is None
        and not link.is_wireless
        and not link.alias.startswith(f"{ALIAS_PREFIX}/")
        and not _BRIDGE_OF_DOCKER.fullmatch(link.name)
    )


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


def refuse_unfit(link: LinkFacts, allow_wireless_parent: bool, mtu: int | None) -> None:
    """
    :raises RequestRefused: the kernel or the LAN would not let containers on this parent talk.
    """
    parent, parent_mtu = link.name, link.mtu
    if parent == "lo":
        raise RequestRefused("loopback interface is not a valid macvlan parent link: name a NIC on the LAN")
    if link.is_wireless and not allow_wireless_parent:
        raise RequestRefused(
            f"parent {parent} is a Wi-Fi interface, and access points drop frames from containers' "
            "MAC addresses: use a wired NIC, or -o allow_wireless_parent=true if your access point "
            "accepts them (4-address mode)"
        )
    if link.bridge is not None:
        raise RequestRefused(
            f"parent {parent} is a port of bridge {link.bridge}, which takes its frames: use -o "
            f"parent={link.bridge}"
        )
    if mtu is not None and mtu > parent_mtu:
        raise RequestRefused(
            f"mtu {mtu} is greater than the MTU of parent {parent}, {parent_mtu}: use at most {parent_mtu}"
        )


def refuse_sharing(network: Network, others: Iterable[Network], names: DisplayNames) -> None:
    """
    Any number of networks share a parent, unless one of them is passthru.

    :raises RequestRefused: in the built-in driver's words, naming the other network.
    """
    for other in others:
        if other.parent != network.parent or other.network_id == network.network_id:
            continue
        if network.mode == MacvlanMode.PASSTHRU:
            raise RequestRefused(
                f"cannot use mode passthru, macvlan network {names.network(other.network_id)} is already using parent "
                f"interface {network.parent}: remove that network, or choose another parent"
            )
        if other.mode == MacvlanMode.PASSTHRU:
            raise RequestRefused(
                f"macvlan network {names.network(other.network_id)} is already using parent interface {network.parent} in mode "
                "passthru: remove that network, or choose another parent"
            )


def needed_by(network: Network) -> list[MadeLink]:
    """What a network needs below its containers, the lowest first."""
    if network.on_dummy:
        return [MadeLink(network.parent, "dummy", mtu=network.mtu)]
    return [MadeLink(step.link, "vlan", step.lower, step.vlan_id) for step in network.vlan_steps]


def links_of(network: Network) -> set[str]:
    return {network.parent, *(step.link for step in network.vlan_steps)}


def links_below(network: Network) -> set[str]:
    """All links that the network's containers depend on, the NIC among them."""
    return links_of(network) | {step.lower for step in network.vlan_steps}


def lowest_missing(network: Network, exists: Callable[[str], bool]) -> str:
    """The link that has to come first for the network's parent to be there; empty if that is."""
    missing = "" if exists(network.parent) else network.parent
    for step in reversed(network.vlan_steps):
        if step.link == missing and not exists(step.lower):
            missing = step.lower
    return missing
