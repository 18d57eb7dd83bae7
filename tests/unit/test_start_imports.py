"""A start of the service does without pyroute2, which takes 0.2 s and 10 MB to import; later a thread imports it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from .helpers import PluginHarness

CHECKOUT = Path(__file__).parents[2]
READ = """
import sys
import macvlan_twisted.tap
from macvlan_twisted.netlink.rtnetlink import NetlinkKernel
kernel = NetlinkKernel()
kernel.links(), kernel.find("lo"), kernel.names(), kernel.members_of_group(70000)
kernel.default_routes(), kernel.addresses_of("lo"), kernel.host_addresses(), kernel.host_routes("lo", 142)
assert "pyroute2" not in sys.modules
kernel.prepare()
assert "pyroute2" in sys.modules
"""


class StartTests(SynchronousTestCase):
    def test_reading_needs_no_pyroute2(self) -> None:
        subprocess.run([sys.executable, "-c", READ], cwd=CHECKOUT, check=True)

    def test_pyroute2_is_imported_in_a_thread_if_there_are_networks(self) -> None:
        plugin = PluginHarness()
        plugin.wait(plugin.parts.resume())
        self.assertNotIn("prepare", plugin.steps.taken)
        plugin.create_network()
        plugin.wait(plugin.parts.resume())
        self.assertIn("prepare", plugin.steps.taken)
