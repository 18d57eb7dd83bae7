"""Find what belongs to the plugin on this host: links, routes, state. Nothing is changed here."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from attrs import field, frozen

from ..failpoints import Failpoint
from ..lan.host_routes import ROUTE_PROTOCOL
from ..netlink.kernel import HostRoute, Kernel, LinkFacts
from ..netlink.links import GROUPS
from ..recovery.link_evidence import parse_alias
from ..state.damage import FILE_NAMES, UNFINISHED_NAME
from ..state.database import DATABASE_NAME
from ..state.generation import RuntimeGeneration
from ..state.owner import Owner
from ..state.sqlite import LOWEST_GROUP

_READ = Failpoint("commands.state.read", "the database is opened to be read, its write-ahead log taken in")

_STACKED = ("vlan", "dummy")
"""Kinds of links that may have upper links of others."""


@frozen
class StateContents:
    """What can be read from a state directory, even where the service would refuse to start with it."""

    directory: Path
    owner: Owner
    instance: str = ""
    group: int = 0
    names: frozenset[str] = frozenset()
    """Names of links in its rows: a link that a kill left without alias is identified by name and group."""
    endpoints: Mapping[str, Mapping[str, Any]] = field(factory=dict)
    leases: Sequence[Mapping[str, Any]] = ()
    """Address, mac and server_id of each."""


def read_state(directory: Path, owner: Owner) -> StateContents:
    """
    Read without checks and without changes: damaged state must not hide whose links there are.

    :param owner: with whose rights it is read, by the caller, and later removed.
    """
    path = directory / DATABASE_NAME
    if path.is_symlink() or not path.is_file():
        return StateContents(directory, owner)

    try:
        with _READ:
            opened = sqlite3.connect(path, isolation_level=None)
        with closing(opened) as database:
            identity = dict(database.execute("SELECT name, value FROM identity"))
            documents = {
                table: {
                    key: json.loads(text)
                    for key, text in database.execute(f"SELECT id, document FROM {table}")
                }
                for table in ("endpoints", "made_links", "host_links", "leases")
            }
            names = {
                *documents["made_links"],
                *(each.get("name", "") for each in documents["host_links"].values()),
                *(each.get("link", "") for each in documents["endpoints"].values()),
            }
            leases = [
                {name: facts.get(name) for name in ("address", "mac", "server_id")}
                for each in documents["leases"].values()
                if isinstance(each, dict) and isinstance(facts := each.get("facts"), dict)
            ]
            return StateContents(
                directory,
                owner,
                str(identity.get("instance", "")),
                _link_group(identity),
                frozenset(names),
                documents["endpoints"],
                leases,
            )
    except (sqlite3.Error, ValueError, TypeError, AttributeError):  # damaged
        return StateContents(directory, owner)


def _link_group(identity: Mapping[str, Any]) -> int:
    """The first link group of the instance; 0 if it is none that the service draws: other links have the low ones."""
    group = int(identity.get("link_group", 0))
    return group if group >= LOWEST_GROUP else 0


def instances_of_directories(
    directories: Collection[Path], runtime: Path, states: Collection[StateContents]
) -> set[str]:
    """:return: the instances of *directories*, from the states or from their notes in the runtime directory."""
    found = {each.instance for each in states if each.instance}
    for directory in directories:
        witnessed = RuntimeGeneration(runtime, directory).of_directory()
        if witnessed is not None:
            found.add(witnessed.instance)
    return found


def our_links(
    links: Sequence[LinkFacts], instances: Collection[str] | None, states: Collection[StateContents]
) -> list[LinkFacts]:
    """
    Our links, upper links before the links below them.

    :param instances: whose links; ``None`` for those of all instances.
    """

    def is_ours(link: LinkFacts) -> bool:
        alias = parse_alias(link)
        if alias is not None:
            return instances is None or alias.instance in instances
        return not link.alias and any(
            each.group <= link.group < each.group + GROUPS and link.name in each.names
            for each in states
            if each.group
        )

    return sorted(filter(is_ours, links), key=lambda link: -_depth(link, links))


def _depth(link: LinkFacts, links: Sequence[LinkFacts]) -> int:
    """The number of links below *link*."""
    by_index = {each.index: each for each in links}
    depth = 0
    while (lower := by_index.get(link.lower_index)) is not None and depth < len(links):
        link, depth = lower, depth + 1
    return depth


def foreign_uppers(link: LinkFacts, links: Sequence[LinkFacts], ours: Collection[str]) -> list[str]:
    """:return: links of others that the kernel would remove together with our VLAN or dummy *link*."""
    if link.kind not in _STACKED:
        return []
    return [each.name for each in links if each.lower_index == link.index and each.name not in ours]


def our_routes(links: Sequence[LinkFacts], kernel: Kernel) -> list[HostRoute]:
    return [
        route
        for link in links
        if link.kind == "macvlan"
        for route in kernel.host_routes(link.name, ROUTE_PROTOCOL)
    ]


def state_files(directory: Path) -> list[Path]:
    """
    The files that the service makes in a state directory, except the lock, which is held meanwhile.

    The database comes last, so that the service still starts if the removal is killed in between.
    """
    names = tuple(reversed((*FILE_NAMES, f"{DATABASE_NAME}-journal", UNFINISHED_NAME)))
    found: list[Path] = []
    for aside in sorted(directory.glob("damaged-*")):
        if aside.is_dir() and not aside.is_symlink():
            found += [aside / name for name in names if (aside / name).is_file()]
            found.append(aside)
    return [*found, *(directory / name for name in names if (directory / name).is_file())]
