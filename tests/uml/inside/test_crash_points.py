"""Killed at each step that only a kernel with VLANs and dummy links lets us take."""

import os

from tests.torture.__main__ import main

MINUTES = "0.3" if os.environ.get("MACVLAN_TWISTED_SHORT") else "12"


def test_killed_vlan_and_dummy_steps_lose_and_leave_nothing() -> None:
    scenarios = ("--scenario=vlan", "--scenario=internal")
    assert main(["crash", "--minutes", MINUTES, *scenarios]) == 0
