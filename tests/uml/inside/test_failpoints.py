"""Killed at each step that only a kernel with VLANs and dummy links lets us take."""

import os

import pytest

from tests.torture.__main__ import main

MINUTES = "12" if os.environ.get("MACVLAN_TWISTED_TEST_ALL") == "1" else "0.7"


def test_killed_vlan_and_dummy_steps_lose_and_leave_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    scenarios = ("--scenario=vlan", "--scenario=internal")
    with capsys.disabled():  # a part of the tests that prints nothing for long is taken to hang
        assert main(["crash", "--minutes", MINUTES, *scenarios]) == 0
