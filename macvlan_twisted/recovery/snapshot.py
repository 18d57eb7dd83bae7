"""The part of the state that ``--recover`` rebuilds, as values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attrs import define, field

from ..addresses import IPAddress, parse_address
from ..dhcp.store import LeaseRecord
from ..driver.models import Endpoint, MadeLink, Network
from ..ipam.pool import Pool
from ..ipam.pool_registry import refuse_container_without_pool
from ..ipam.requests import Purpose
from ..lan.host_link import HostLink
from ..state import database as tables
from ..state.database import Change, Database, Put, Table, to_json
from ..state.interfaces import Allocation
from ..state.serialize import from_document, to_document
from ..state.sqlite import purpose_in


@define
class Snapshot:
    """Rows as values: read from sound state, or empty, and then completed."""

    networks: dict[str, Network] = field(factory=dict)
    endpoints: dict[str, Endpoint] = field(factory=dict)
    made_links: dict[str, MadeLink] = field(factory=dict)
    host_links: dict[str, HostLink] = field(factory=dict)
    leases: dict[str, LeaseRecord] = field(factory=dict)
    pools: dict[str, Pool] = field(factory=dict)
    allocations: dict[tuple[str, IPAddress], Purpose] = field(factory=dict)
    """By PoolID and address."""

    @classmethod
    def of(cls, database: Database) -> Snapshot:
        """
        :raises StateError: a row cannot be read.
        """

        def documents(table: Table, kind: type) -> dict[str, Any]:
            return {key: from_document(kind, json.loads(text)) for key, text in database.rows(table)}

        pools = documents(tables.POOLS, Pool)
        allocations: dict[tuple[str, IPAddress], Purpose] = {}
        for pool_id, text, purpose in database.rows(tables.ADDRESSES):
            address = parse_address(text)
            if pool_id in pools:
                allocations[pool_id, address] = Purpose(purpose_in(purpose))
            else:  # the service frees the others when it starts
                refuse_container_without_pool(Allocation(pool_id, address, purpose_in(purpose)))
        return cls(
            networks=documents(tables.NETWORKS, Network),
            endpoints=documents(tables.ENDPOINTS, Endpoint),
            made_links=documents(tables.MADE_LINKS, MadeLink),
            host_links=documents(tables.HOST_LINKS, HostLink),
            leases=documents(tables.LEASES, LeaseRecord),
            pools=pools,
            allocations=allocations,
        )

    def copy(self) -> Snapshot:
        return Snapshot(
            dict(self.networks),
            dict(self.endpoints),
            dict(self.made_links),
            dict(self.host_links),
            dict(self.leases),
            dict(self.pools),
            dict(self.allocations),
        )

    def changes_since(self, before: Snapshot) -> list[Change]:
        """The changes that turn *before* into this; nothing is ever removed."""
        changes: list[Change] = []
        values: tuple[tuple[Table, Mapping[str, Any], Mapping[str, Any]], ...] = (
            (tables.NETWORKS, self.networks, before.networks),
            (tables.ENDPOINTS, self.endpoints, before.endpoints),
            (tables.MADE_LINKS, self.made_links, before.made_links),
            (tables.HOST_LINKS, self.host_links, before.host_links),
            (tables.LEASES, self.leases, before.leases),
            (tables.POOLS, self.pools, before.pools),
        )
        for table, now, then in values:
            changes += [
                Put(table, (key, to_json(to_document(value))))
                for key, value in now.items()
                if then.get(key) != value
            ]
        changes += [
            Put(tables.ADDRESSES, (pool_id, str(address), purpose.value))
            for (pool_id, address), purpose in self.allocations.items()
            if (pool_id, address) not in before.allocations
        ]
        return changes
