"""Which links are ours: what we did not make is never touched."""

from __future__ import annotations

from collections.abc import Callable

from ..link_names import endpoint_link_name, instance_prefix, probe_link_name
from ..netlink.kernel import Marked
from ..netlink.links import GROUPS
from ..state.interfaces import HostRecords
from .registry import Registry


def ownership(records: HostRecords, registry: Registry) -> Callable[[Marked], bool]:
    """
    A link is ours if its alias says so.

    Between its creation and its alias a crash may fall: then its name, its group and a row in state prove it.
    """
    prefix = instance_prefix(records.instance)
    groups = range(records.link_group, records.link_group + GROUPS)

    def is_ours(link: Marked) -> bool:
        if link.alias.startswith(prefix):
            return True
        if link.alias or link.group not in groups:
            return False
        return (
            link.name in registry.made_links
            or any(each.name == link.name for each in registry.host_links.values())
            or any(endpoint_link_name(each) == link.name for each in registry.endpoints)
            or any(probe_link_name(each) == link.name for each in registry.networks)
        )

    return is_ours
