"""A network that cannot be created leaves nothing, wherever it stops; the engine will not ask for it."""

from __future__ import annotations

from typing import Any

from macvlan_twisted.errors import LinkFailed, StateFailed
from macvlan_twisted.names import trial_link_name

from .helpers import NETWORK, OTHER_NETWORK, PLAIN_LINKS, House, HouseTestCase, network_request

KINDS: tuple[tuple[dict[str, Any], bool], ...] = (
    ({}, False),
    ({"parent": "eth1.20"}, False),
    ({"parent": "eth1.20.30", "mtu": "1400"}, False),
    ({}, True),
    ({"mode": "passthru"}, False),
)


class RollbackTests(HouseTestCase):
    def test_the_kernel_refuses_any_one_step(self) -> None:
        for options, internal in KINDS:
            number = 0
            while True:
                number += 1
                house = House()
                house.steps.refuse_number = number
                try:
                    house.wait(house.networks.create(network_request(internal=internal, **options)))
                except LinkFailed as failure:
                    self.assertIn("a test refuses it", str(failure))
                else:
                    if number > len(house.steps.taken):
                        break
                    self.assertNotIn(trial_link_name(NETWORK), house.link_names(), "another way to remove it")
                    house.wait(house.networks.delete(NETWORK))
                self.assert_nothing_left(house)
            self.assertGreater(number, 3, "no step was refused at all")

    def test_the_kernel_refuses_one_kind_of_step_for_good(self) -> None:
        for options, internal in KINDS:
            for step in ("links", "find", "add_vlan", "add_dummy", "add_port", "read_port", "set_up"):
                house = House()
                house.steps.refuse[step] = 1
                try:
                    house.wait(house.networks.create(network_request(internal=internal, **options)))
                except LinkFailed:
                    house.steps.refuse.clear()
                    if step == "find":  # without which a made link cannot be told to be ours, nor removed
                        house = house.next_life()
                    self.assert_nothing_left(house)

    def test_the_disk_refuses_any_one_write(self) -> None:
        for options, internal in KINDS:
            number = 0
            while True:
                number += 1
                house = House()
                house.records.steps.refuse_number = number
                try:
                    house.wait(house.networks.create(network_request(internal=internal, **options)))
                except StateFailed as failure:
                    self.assertIn("a test refuses it", str(failure))
                else:
                    break
                self.assert_nothing_left(house)
            self.assertGreater(number, 1, "no write was refused at all")

    def test_the_first_error_is_told_when_undoing_fails_too(self) -> None:
        self.house.steps.refuse["add_port"] = 22
        self.house.records.steps.refuse["forget"] = 0
        with self.assert_refused(LinkFailed):
            self.house.create_network()
        self.assertEqual(dict(self.house.known.networks), {})

    def test_another_networks_vlan_outlives_a_failed_creation(self) -> None:
        self.house.create_network(parent="eth1.20")
        self.house.steps.refuse["add_port"] = 22
        with self.assert_refused(LinkFailed):
            self.house.create_network(OTHER_NETWORK, parent="eth1.20")
        self.assertEqual(self.house.link_names(), {*PLAIN_LINKS, "eth1.20"})
        self.assertEqual(list(self.house.known.networks), [NETWORK])

    def test_a_failed_creation_can_be_repeated(self) -> None:
        self.house.steps.refuse["add_port"] = 22
        with self.assert_refused(LinkFailed):
            self.house.create_network(parent="eth1.20")
        self.house.steps.refuse.clear()
        self.house.create_network(parent="eth1.20")
        self.assertEqual(self.house.link_names(), {*PLAIN_LINKS, "eth1.20"})
