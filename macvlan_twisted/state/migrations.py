"""
The versions of the state's format, and how each is made of the one before it.

One number, SQLite's ``user_version``, is the version of the whole directory: of the tables, of the JSON documents in them, and
of the files beside the database. It is raised with each change to any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any
from urllib.parse import unquote

from attrs import frozen

Documents = dict[str, dict[str, dict[str, Any]]]
"""JSON objects by the name of their table and by their key."""

_ANY = ("0.0.0.0/0", "::/0")
"""What an engine is told, and tells, where the user named no subnet. Docker's null address management says it, too."""


@frozen
class Migration:
    """From one version to the next. It knows no class of today: it has to do the same for ever."""

    statements: tuple[str, ...] = ()
    """SQL that changes tables."""
    infer: Callable[[Documents], Documents] | None = None
    """
    Returns the documents with what is true of old ones, where the default of a new field would say something else. It may change
    what it is given.
    """

    def changed(self, documents: Documents) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        """The table, key and new text of each document that is another one than in *documents*."""
        if self.infer is None:
            return
        for table, rows in self.infer(deepcopy(documents)).items():
            for key, document in rows.items():
                if documents[table][key] != document:
                    yield table, key, document


def _infer_who_manages_addresses(documents: Documents) -> Documents:
    """
    Version 2 was written by programs that knew fewer and fewer fields, the older they were. Those that were missing say:

    * of a subnet, whether this plugin manages its addresses (``is_ours``: there is a pool of it), or nobody does
      (``is_nobodys``). By default another driver does, and each address of ours would be looked for on the LAN and in our own
      pools, and refused as in use;
    * of a pool, whether it is a swarm's (``is_global``), whether the user named its parent (``parent_named``), and on which
      other parent its network is (``network_parent``).
    """
    networks, pools = documents["networks"], documents["pools"]
    for pool_id, pool in pools.items():
        if "is_global" not in pool and pool["address_space"] == "MacvlanTwistedGlobal":
            pool |= {"is_global": True, "conflict_detection": "off"}
        if "parent_named" not in pool:
            pool["parent_named"] = "parent" in _options_in(pool_id)
    for network in networks.values():
        for subnet in network["subnets"]:
            if "is_ours" not in subnet:
                subnet["is_ours"] = any(_fits(pool, subnet, network) for pool in pools.values())
            if "is_nobodys" not in subnet:
                subnet["is_nobodys"] = (
                    not subnet["is_ours"] and subnet["pool"] in _ANY and subnet.get("gateway") is None
                )
    for pool in pools.values():
        if "network_parent" not in pool:
            parents = {
                network["parent"]
                for network in networks.values()
                for subnet in network["subnets"]
                if subnet["is_ours"] and _fits(pool, subnet, network)
            }
            if len(parents) == 1 and parents != {pool["parent"]}:
                pool["network_parent"] = parents.pop()
    return documents


def _options_in(pool_id: str) -> set[str]:
    """The names of the ``--ipam-opt`` options, which a PoolID holds: space;pool;part;options;nonce."""
    parts = pool_id.split(";")
    return {unquote(each.partition("=")[0]) for each in parts[3].split("&")} if len(parts) > 3 else set()


def _fits(pool: Mapping[str, Any], subnet: Mapping[str, Any], network: Mapping[str, Any]) -> bool:
    """Whether *subnet* of *network* may be that of *pool*."""
    any_of_family = _ANY[":" in pool["prefix"]]
    reported = any_of_family if pool.get("any_subnet") else pool["prefix"]
    return reported == subnet["pool"] and (not pool["parent_named"] or pool["parent"] == network["parent"])


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        (
            """CREATE TABLE ledger (only INTEGER PRIMARY KEY CHECK (only = 1), generation INTEGER NOT NULL,
                                    row_count INTEGER NOT NULL, digest INTEGER NOT NULL)""",
            "INSERT INTO ledger VALUES (1, 0, 0, 0)",
            "CREATE TABLE identity (name TEXT PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID",
            "CREATE TABLE networks (id TEXT PRIMARY KEY, document TEXT NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID",
            "CREATE TABLE endpoints (id TEXT PRIMARY KEY, document TEXT NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID",
            "CREATE TABLE made_links (id TEXT PRIMARY KEY, document TEXT NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID",
            "CREATE TABLE pools (id TEXT PRIMARY KEY, document TEXT NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID",
            """CREATE TABLE cursors (shared_set TEXT PRIMARY KEY, address TEXT NOT NULL, checksum INTEGER NOT NULL)
               WITHOUT ROWID""",
            """CREATE TABLE addresses (pool_id TEXT NOT NULL, address TEXT NOT NULL, purpose TEXT NOT NULL,
                                       checksum INTEGER NOT NULL, PRIMARY KEY (pool_id, address)) WITHOUT ROWID""",
        )
    ),
    Migration(
        (
            "CREATE TABLE host_links (id TEXT PRIMARY KEY, document TEXT NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID",
            "CREATE TABLE conflicts (id TEXT PRIMARY KEY, document TEXT NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID",
            "CREATE TABLE leases (id TEXT PRIMARY KEY, document TEXT NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID",
            """CREATE TABLE identities (pool_id TEXT NOT NULL, name TEXT NOT NULL, address TEXT NOT NULL, mac TEXT NOT NULL,
                                        checksum INTEGER NOT NULL, PRIMARY KEY (pool_id, name)) WITHOUT ROWID""",
        )
    ),
    Migration(infer=_infer_who_manages_addresses),
    # From now on the purpose of an address may end in ", chosen". Of old ones that is unknown: they do not return.
    Migration(
        (
            """CREATE TABLE returned (pool_id TEXT NOT NULL, address TEXT NOT NULL, released_at TEXT NOT NULL,
                                      checksum INTEGER NOT NULL, PRIMARY KEY (pool_id, address)) WITHOUT ROWID""",
        )
    ),
    Migration(
        (
            """CREATE TABLE last_addresses (pool_id TEXT NOT NULL, container_id TEXT NOT NULL, address TEXT NOT NULL,
                                            traits TEXT NOT NULL, checksum INTEGER NOT NULL,
                                            PRIMARY KEY (pool_id, container_id)) WITHOUT ROWID""",
        )
    ),
    # From now on a pool has a LAN and a share (fleet_share); old ones have the default one and none.
    Migration(
        (
            "CREATE TABLE fleet (id TEXT PRIMARY KEY, document TEXT NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID",
        )
    ),
)
"""The first makes version 1 of an empty file. A new version appends one; none is ever changed."""

VERSION = len(MIGRATIONS)
"""The version that this program writes."""
