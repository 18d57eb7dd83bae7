"""CreateNetwork leaves nothing where it fails: the engine does not ask for the removal."""

from __future__ import annotations

from functools import partial
from typing import Any

from macvlan_twisted.errors import LinkError
from macvlan_twisted.link_names import probe_link_name

from .helpers import NETWORK, OTHER_NETWORK, PLAIN_LINKS, PluginHarness, PluginTestCase, on_disk, on_kernel

KINDS: tuple[dict[str, Any], ...] = (
    {},
    {"parent": "eth1.20"},
    {"parent": "eth1.20.30", "mtu": "1400"},
    {"internal": True},
    {"mode": "passthru"},
)


class RollbackTests(PluginTestCase):
    def create(self, kind: dict[str, Any]) -> None:
        self.plugin.create_network(**kind)

    def test_kernel_error_at_any_step_leaves_nothing(self) -> None:
        def retried() -> None:
            """The probe link has been removed in another way."""
            self.assertNotIn(probe_link_name(NETWORK), self.plugin.link_names())
            self.plugin.delete_network()
            self.assert_nothing_left()

        for kind in KINDS:
            create = partial(self.create, kind)
            self.refuse_each_step(on_kernel, create, self.assert_nothing_left, retried=retried, least=3)

    def test_persistent_kernel_error_leaves_nothing(self) -> None:
        for kind in KINDS:
            for step in ("links", "find", "add_vlan", "add_dummy", "add_macvlan", "read_macvlan", "set_up"):
                plugin = PluginHarness()
                plugin.steps.refuse[step] = 1
                try:
                    plugin.create_network(**kind)
                except LinkError:
                    plugin.steps.refuse.clear()
                    if step == "find":  # without it we cannot prove that a link is ours, and delete it
                        plugin = plugin.next_life()
                    self.assert_nothing_left(plugin)

    def test_disk_error_at_any_write_leaves_nothing(self) -> None:
        for kind in KINDS:
            self.refuse_each_step(on_disk, partial(self.create, kind), self.assert_nothing_left)

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
