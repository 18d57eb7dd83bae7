"""Killed at each step that only a kernel with VLANs and dummy links lets us take."""

import os

from tests.torture.__main__ import main

MINUTES = "0.3" if os.environ.get("MACVLAN_TWISTED_SHORT") else "12"


def test_a_kill_at_a_step_of_a_vlan_or_a_dummy_link_loses_or_leaves_something() -> None:
    scenarios = ("--scenario=vlan", "--scenario=internal")
    assert main(["crash", "--minutes", MINUTES, *scenarios]) == 0
