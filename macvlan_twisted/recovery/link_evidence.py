"""What the kernel's links tell about the state: which instances they belong to, and which rows state must have."""

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
"""Kinds of our links that stay in the host's network namespace."""
_NAMED_KINDS = ("vlan", "dummy")
"""Kinds whose alias contains the link's original name."""


@frozen
class LinkAlias:
    """The alias of one of our links: ``PREFIX/INSTANCE/KIND/IDENTIFIER``."""

    instance: str
    kind: str
    identifier: str


def parse_alias(link: LinkFacts) -> LinkAlias | None:
    """``None`` if the link is not ours."""
    return parse_alias_text(link.alias)


def parse_alias_text(alias: str) -> LinkAlias | None:
    """``None`` if *alias* is not that of one of our links."""
    parts = alias.split("/", 3)
    if len(parts) != 4 or parts[0] != ALIAS_PREFIX:
        return None
    return LinkAlias(*parts[1:])


def instances_of(links: Iterable[LinkFacts]) -> dict[str, int]:
    """:return: the first link group of each instance that has links here."""
    found: dict[str, int] = {}
    for link in links:
        alias = parse_alias(link)
        if alias is not None:
            found.setdefault(alias.instance, first_group_of(link.group))
    return found


def refuse_unknown_links(instance: str, links: Iterable[LinkFacts], registry: Registry) -> None:
    """
    Check that *registry* knows the instance's links in the host's namespace.

    State has a row for such a link from before its creation until after its removal. A link without one proves that the
    state is an older copy.

    :raises StateError: a link is unknown to the state.
    :raises StartupError: a link has been renamed; containers may depend on it.
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
                f"link {link.name} was created as {alias.identifier} and has been renamed: rename it back "
                f"with ip link set {link.name} name {alias.identifier}, or remove it"
            )
        if link.name not in names:
            # Remedy: if you have an intact, up-to-date copy of the state directory, restore it; otherwise start the plugin
            # once with --recover.
            raise StateError(
                f"state is older than link {link.name} ({link.alias}), which it does not list: an older "
                "copy was restored"
            )


def warn_of_other_instances(instance: str, links: Iterable[LinkFacts], outside: RuntimeGeneration) -> None:
    """Warn of links of instances without a state on this host: a new, empty state may stand where one was lost."""
    others = set(instances_of(links)) - {instance}
    for noted in outside.all():
        if Path(noted.directory, DATABASE_NAME).exists():
            others.discard(noted.instance)
    if others:
        # Cause: the plugin ran on this host with another state directory, whose state is not found any more; each
        # state directory is an instance of its own. Remedy: if their state was lost, stop the plugin and start it once
        # with --recover; otherwise remove the links. The command ``purge`` needs the plugin stopped. It also
        # removes this instance's own links and state.
        _log.warn(
            "links of other instances: found on this host ({instances}); if their state was lost, stop the plugin and "
            "start it once with --recover; if the links are not needed, stop the plugin and run: macvlan-twisted purge "
            "--every-instance (also removes this instance's own links and state)",
            instances=", ".join(sorted(others)),
        )


def host_links_of(instance: str, links: Iterable[LinkFacts], kernel: Kernel) -> dict[str, HostLink]:
    """:return: the instance's host links with their addresses, by parent."""
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
    """:return: VLANs and dummy links that the instance made for networks, by name."""
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
