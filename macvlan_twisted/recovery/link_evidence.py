"""What the kernel shows of an earlier life: whose links there are, and what hangs on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from attrs import frozen
from twisted.logger import Logger

from ..driver.models import MadeLink
from ..driver.registry import Registry
from ..errors import StartupError, StateError
from ..lan.host_link import HostLink
from ..link_names import ALIAS_PREFIX
from ..netlink.kernel import Kernel, LinkFacts
from ..state.database import DATABASE_NAME
from ..state.generation import RuntimeGeneration
from ..state.sqlite import first_group_of

_log = Logger(namespace="macvlan_twisted.recovery")

HOST_NAMESPACE_KINDS = ("host", "vlan", "dummy")
"""The kinds of links that stay in the host's namespace."""
_NAMED_KINDS = ("vlan", "dummy")
"""Those whose alias says how they were named."""


@frozen
class LinkAlias:
    """What the alias of one of our links says."""

    instance: str
    kind: str
    identifier: str


def parse_alias(link: LinkFacts) -> LinkAlias | None:
    """``None``: the link is not one of ours."""
    return parse_alias_text(link.alias)


def parse_alias_text(alias: str) -> LinkAlias | None:
    """``None``: it is not one of a link of ours."""
    parts = alias.split("/", 3)
    if len(parts) != 4 or parts[0] != ALIAS_PREFIX:
        return None
    return LinkAlias(*parts[1:])


def instances_of(links: Iterable[LinkFacts]) -> dict[str, int]:
    """The instances that have links here, each with the first of its groups of links."""
    found: dict[str, int] = {}
    for link in links:
        alias = parse_alias(link)
        if alias is not None:
            found.setdefault(alias.instance, first_group_of(link.group))
    return found


def refuse_unknown_links(instance: str, links: Iterable[LinkFacts], registry: Registry) -> None:
    """
    Such links have a row from before they are made until after they are gone.

    :raises StateError: the kernel has one that state does not know, so state is older than it.
    :raises StartupError: somebody has renamed one, on which containers may hang.
    """
    names = {*registry.made_links, *(each.name for each in registry.host_links.values())}
    for link in links:
        alias = parse_alias(link)
        if alias is None or alias.instance != instance or alias.kind not in HOST_NAMESPACE_KINDS:
            continue
        if (
            alias.kind in _NAMED_KINDS
            and link.name != alias.identifier
            and alias.identifier in registry.made_links
        ):
            raise StartupError(
                f"link {link.name} was made for networks as {alias.identifier}, and somebody has renamed it: rename it back, "
                f"with ip link set {link.name} name {alias.identifier}, or remove it"
            )
        if link.name not in names:
            raise StateError(
                f"state is older than link {link.name} ({link.alias}), which it does not know: an older copy was put in its "
                "place"
            )


def warn_of_other_instances(instance: str, links: Iterable[LinkFacts], outside: RuntimeGeneration) -> None:
    """A state that was just begun may be there in the place of one that is lost."""
    others = set(instances_of(links)) - {instance}
    for said in outside.all():
        if Path(said.directory, DATABASE_NAME).exists():
            others.discard(said.instance)
    if others:
        _log.warn(
            "links of other instances are on this host ({instances}), and whose they are is not known: if the state was lost, "
            "stop and start once with --recover; if nobody needs them, remove them with macvlan-twisted purge "
            "--every-instance",
            instances=", ".join(sorted(others)),
        )


def host_links_of(instance: str, links: Iterable[LinkFacts], kernel: Kernel) -> dict[str, HostLink]:
    """Our own links by parent, with the host's addresses on them."""
    found = {}
    for link in links:
        alias = parse_alias(link)
        if alias is not None and (alias.instance, alias.kind) == (instance, "host"):
            addresses = tuple(
                each
                for each in kernel.addresses_of(link.name)
                if each.network.prefixlen == each.max_prefixlen and not each.is_link_local
            )
            found[alias.identifier] = HostLink(alias.identifier, link.name, link.mac, addresses)
    return found


def made_links_of(instance: str, links: Sequence[LinkFacts]) -> dict[str, MadeLink]:
    """VLANs and dummy links that were made for networks."""
    names = {link.index: link.name for link in links}
    found = {}
    for link in links:
        alias = parse_alias(link)
        if alias is None or alias.instance != instance:
            continue
        if alias.kind == "vlan" and link.lower_index in names and link.vlan_id is not None:
            found[link.name] = MadeLink(link.name, "vlan", names[link.lower_index], link.vlan_id)
        elif alias.kind == "dummy":
            found[link.name] = MadeLink(link.name, "dummy", mtu=link.mtu)
    return found
