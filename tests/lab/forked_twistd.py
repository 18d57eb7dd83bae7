"""What a process forked for a test does: it runs ``twistd macvlan``."""

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any


def run(order: dict[str, Any]) -> None:
    """Run twistd with the order's ``arguments``, and with its ``grace_periods`` if it has any. Never returns."""
    if order.get("grace_periods"):
        shorten_grace_periods(order["grace_periods"])
    sys.argv = ["twistd", *order["arguments"]]
    from twisted.scripts.twistd import run

    run()


def shorten_grace_periods(seconds: Sequence[float]) -> None:
    """Give the reconciler the members of GracePeriods, which users cannot set; what concerns a fleet follows them."""
    from macvlan_twisted import tap
    from macvlan_twisted.fleet import session, sweep
    from macvlan_twisted.reconcile.reconciler import GracePeriods

    grace_periods = GracePeriods(*seconds)
    session.SWEEP_INTERVAL, sweep.STRAY_GRACE = grace_periods.between_checks, grace_periods.idle
    tap.make_macvlan_service = partial(tap.make_macvlan_service, grace_periods=grace_periods)
