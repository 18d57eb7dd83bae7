"""A network that cannot be created leaves nothing, wherever it stops; the engine will not ask for it."""

from __future__ import annotations

from typing import Any

from macvlan_twisted.errors import LinkError, StateError
from macvlan_twisted.link_names import probe_link_name

from .helpers import NETWORK, OTHER_NETWORK, PLAIN_LINKS, PluginHarness, PluginTestCase, network_request

KINDS: tuple[tuple[dict[str, Any], bool], ...] = (
    ({}, False),
    ({"parent": "eth1.20"}, False),
    ({"parent": "eth1.20.30", "mtu": "1400"}, False),
    ({}, True),
    ({"mode": "passthru"}, False),
)


class RollbackTests(PluginTestCase):
    def test_kernel_error_at_any_step_leaves_nothing(self) -> None:
        for options, internal in KINDS:
            number = 0
            while True:
                number += 1
                plugin = PluginHarness()
                plugin.steps.refuse_number = number
                try:
                    plugin.wait(plugin.networks.create(network_request(internal=internal, **options)))
                except LinkError as failure:
                    self.assertIn("a test refuses it", str(failure))
                else:
                    if number > len(plugin.steps.taken):
                        break
                    self.assertNotIn(
                        probe_link_name(NETWORK), plugin.link_names(), "another way to remove it"
                    )
                    plugin.wait(plugin.networks.delete(NETWORK))
                self.assert_nothing_left(plugin)
            self.assertGreater(number, 3, "no step was refused at all")

    def test_persistent_kernel_error_leaves_nothing(self) -> None:
        for options, internal in KINDS:
            for step in ("links", "find", "add_vlan", "add_dummy", "add_macvlan", "read_macvlan", "set_up"):
                plugin = PluginHarness()
                plugin.steps.refuse[step] = 1
                try:
                    plugin.wait(plugin.networks.create(network_request(internal=internal, **options)))
                except LinkError:
                    plugin.steps.refuse.clear()
                    if step == "find":  # without which a made link cannot be told to be ours, nor removed
                        plugin = plugin.next_life()
                    self.assert_nothing_left(plugin)

    def test_disk_error_at_any_write_leaves_nothing(self) -> None:
        for options, internal in KINDS:
            number = 0
            while True:
                number += 1
                plugin = PluginHarness()
                plugin.records.steps.refuse_number = number
                try:
                    plugin.wait(plugin.networks.create(network_request(internal=internal, **options)))
                except StateError as failure:
                    self.assertIn("a test refuses it", str(failure))
                else:
                    break
                self.assert_nothing_left(plugin)
            self.assertGreater(number, 1, "no write was refused at all")

    def test_first_error_is_reported_if_undo_fails_too(self) -> None:
        self.plugin.steps.refuse["add_macvlan"] = 22
        self.plugin.records.steps.refuse["forget"] = 0
        with self.assert_refused(LinkError):
            self.plugin.create_network()
        self.assertEqual(dict(self.plugin.registry.networks), {})

    def test_failed_creation_keeps_the_vlan_of_another_network(self) -> None:
        self.plugin.create_network(parent="eth1.20")
        self.plugin.steps.refuse["add_macvlan"] = 22
        with self.assert_refused(LinkError):
            self.plugin.create_network(OTHER_NETWORK, parent="eth1.20")
        self.assertEqual(self.plugin.link_names(), {*PLAIN_LINKS, "eth1.20"})
        self.assertEqual(list(self.plugin.registry.networks), [NETWORK])

    def test_failed_creation_can_be_repeated(self) -> None:
        self.plugin.steps.refuse["add_macvlan"] = 22
        with self.assert_refused(LinkError):
            self.plugin.create_network(parent="eth1.20")
        self.plugin.steps.refuse.clear()
        self.plugin.create_network(parent="eth1.20")
        self.assertEqual(self.plugin.link_names(), {*PLAIN_LINKS, "eth1.20"})
