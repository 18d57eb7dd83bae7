"""Which links are ours: what we did not make is never touched."""

from __future__ import annotations

from collections.abc import Callable

from ..links.interface import Marked
from ..links.pool import GROUPS
from ..names import endpoint_link_name, instance_prefix, trial_link_name
from ..state.interface import HostRecords
from .known import Known


def ownership(records: HostRecords, known: Known) -> Callable[[Marked], bool]:
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
            link.name in known.made_links
            or any(each.name == link.name for each in known.host_links.values())
            or any(endpoint_link_name(each) == link.name for each in known.endpoints)
            or any(trial_link_name(each) == link.name for each in known.networks)
        )

    return is_ours
