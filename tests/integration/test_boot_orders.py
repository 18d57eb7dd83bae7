"""Engine and plugin start and end in unusual orders. ``bin/torture boots`` tries all of them."""

import stat

import pytest

from tests.lab.lan import Lan
from tests.lab.plugin import Plugin
from tests.lab.requirements import missing_for_dhcp
from tests.torture.boot_orders import BY_NAME
from tests.torture.boot_try import live_through
from tests.torture.world_state import populated_world


def test_restart_leaves_systemds_socket_intact(lan: Lan) -> None:
    """Its mode stays, and it is not shut down."""
    with Plugin(lan, socket_unit=True) as plugin:
        for end in (plugin.stop, plugin.kill, plugin.stop):
            assert stat.S_IMODE(plugin.socket.stat().st_mode) == 0o600
            assert plugin.call("Plugin.Activate")["Implements"]
            end()
            assert plugin.socket_unit is not None
            assert not plugin.socket_unit.wait_for_call(0), "the socket was shut down"
            plugin.start()


def lived_through(version: str, name: str, *, live_restore: bool) -> list[str]:
    """Run an order, and return what was lost or left behind."""
    order = BY_NAME[name]
    with populated_world(
        version,
        live_restore=live_restore,
        socket_unit=order.socket_unit,
        dhcp=not missing_for_dhcp(),
        few=True,
    ) as home:
        outcome = live_through(home, order)
    return outcome.lost + outcome.leaked


def test_containers_start_after_reboot_with_a_faster_engine(usable_engine_version: str) -> None:
    """Its calls wait on the socket, and all containers with a restart policy start."""
    assert lived_through(usable_engine_version, "reboot-socket", live_restore=False) == []


@pytest.mark.one_engine
def test_starts_succeed_while_systemd_restarts_the_plugin(usable_engine_version: str) -> None:
    assert lived_through(usable_engine_version, "starts-stop-socket", live_restore=True) == []
