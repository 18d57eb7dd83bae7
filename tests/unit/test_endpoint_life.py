"""What the calls about endpoints do after their creation: Join to DeleteEndpoint."""

from __future__ import annotations

import errno
from ipaddress import ip_address

from macvlan_twisted.driver import requests
from macvlan_twisted.errors import LinkFailed, NotFound
from macvlan_twisted.names import endpoint_link_name

from .helpers import (
    ENDPOINT,
    NETWORK,
    OTHER_NETWORK,
    PLAIN_LINKS,
    HouseTestCase,
    network_request,
    subnet,
)

LINK = endpoint_link_name(ENDPOINT)
CALL = requests.EndpointCall(NETWORK, ENDPOINT)
JOIN = requests.Join(NETWORK, ENDPOINT, "/var/run/docker/netns/1f2e3d4c5b6a")


class JoinTests(HouseTestCase):
    SUBNETS = (
        subnet("10.1.0.0/16", "10.1.0.1"),
        subnet("10.2.0.0/16", "10.2.0.1"),
        subnet("10.3.0.0/16"),
        subnet("fd00::/64", "fd00::1"),
    )

    def joined(
        self, address: str | None, address_v6: str | None = None, internal: bool = False
    ) -> requests.Joined:
        request = network_request(subnets=self.SUBNETS, internal=internal, parent="eth0")
        self.house.wait(self.house.networks.create(request))
        self.house.create_endpoint(address=address, address_v6=address_v6)
        return self.house.wait(self.house.endpoints.join(JOIN))

    def test_the_gateway_is_that_of_the_endpoints_own_subnet(self) -> None:
        self.assertEqual(
            self.joined("10.2.0.7/16", "fd00::7/64"),
            requests.Joined(LINK, ip_address("10.2.0.1"), ip_address("fd00::1")),
        )

    def test_a_subnet_without_a_gateway_gives_none(self) -> None:
        self.assertEqual(self.joined("10.3.0.7/16"), requests.Joined(LINK))

    def test_an_endpoint_without_addresses_has_no_gateway(self) -> None:
        self.assertEqual(self.joined(None), requests.Joined(LINK))

    def test_an_internal_network_has_no_gateway(self) -> None:
        self.assertEqual(self.joined("10.1.0.7/16", "fd00::7/64", internal=True), requests.Joined(LINK))

    def test_a_link_that_is_gone_is_told(self) -> None:
        self.house.create_network()
        self.house.create_endpoint()
        self.house.kernel.delete(LINK)
        with self.assert_refused(NotFound, LINK, "start the container again"):
            self.house.wait(self.house.endpoints.join(JOIN))

    def test_an_unknown_endpoint_is_told(self) -> None:
        with self.assert_refused(NotFound, ENDPOINT):
            self.house.wait(self.house.endpoints.join(JOIN))


class InformationTests(HouseTestCase):
    def test_there_is_told_what_there_is_to_tell(self) -> None:
        self.house.create_network(parent="eth1.20", mode="private")
        self.house.create_endpoint(address_v6="fd00::7/64")
        told = self.house.wait(self.house.endpoints.operational_info(CALL))
        self.assertEqual(
            told,
            {
                "parent": "eth1.20",
                "mode": "private",
                "link": LINK,
                "mac": "7a:42:c0:a8:01:07",
                "address": "192.168.1.7/24",
                "address_v6": "fd00::7/64",
                "vlan_id": "20",
            },
        )

    def test_what_there_is_not_is_left_out(self) -> None:
        self.house.create_network(mode="passthru")
        self.house.create_endpoint(address=None)
        told = self.house.wait(self.house.endpoints.operational_info(CALL))
        self.assertEqual(told, {"parent": "eth0", "mode": "passthru", "link": LINK})


class RemovalTests(HouseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.house.create_network()
        self.network_only = self.house.records.all_rows()

    def test_link_and_row_go(self) -> None:
        self.house.create_endpoint()
        self.house.delete_endpoint()
        self.assertEqual(self.house.link_names(), PLAIN_LINKS)
        self.assertEqual(self.house.records.all_rows(), self.network_only)

    def test_a_link_that_went_with_its_sandbox_is_success(self) -> None:
        self.house.create_endpoint()
        self.house.kernel.move_away(LINK)
        self.house.delete_endpoint()
        self.assertEqual(self.house.records.all_rows(), self.network_only)

    def test_what_is_not_there_is_success_also_twice(self) -> None:
        self.house.delete_endpoint()
        self.house.create_endpoint()
        self.house.delete_endpoint()
        self.house.delete_endpoint()
        self.house.delete_endpoint(network_id=OTHER_NETWORK)
        self.assertEqual(self.house.records.all_rows(), self.network_only)

    def test_leave_is_success_for_anything(self) -> None:
        self.house.wait(self.house.endpoints.leave(CALL))
        self.house.create_endpoint()
        for _ in range(2):
            self.house.wait(self.house.endpoints.leave(CALL))
        self.assertIn(ENDPOINT, self.house.known.endpoints)

    def test_no_answer_before_the_row_is_gone_from_disk(self) -> None:
        self.house.create_endpoint()
        self.house.records.steps.hold.add("forget")
        removal = self.house.start(self.house.removal.delete(CALL))
        self.assertNoResult(removal)
        self.house.records.steps.let_all_go()
        self.successResultOf(removal)

    def test_the_answer_does_not_wait_for_the_kernels_grace_period(self) -> None:
        self.house.create_endpoint()
        self.house.steps.hold.add("delete_group")
        self.successResultOf(self.house.start(self.house.removal.delete(CALL)))
        self.assertIn(LINK, self.house.link_names())
        self.house.steps.let_all_go()
        self.assertEqual(self.house.link_names(), PLAIN_LINKS)

    def test_in_passthru_the_answer_waits_until_the_parent_is_free(self) -> None:
        self.house.create_network(OTHER_NETWORK, parent="eth1", mode="passthru")
        self.house.create_endpoint(network_id=OTHER_NETWORK)
        self.house.steps.hold.add("delete_group")
        removal = self.house.start(self.house.removal.delete(requests.EndpointCall(OTHER_NETWORK, ENDPOINT)))
        self.assertNoResult(removal)
        self.house.steps.let_all_go()
        self.successResultOf(removal)

    def test_a_failing_kernel_is_told(self) -> None:
        self.house.create_endpoint()
        self.house.steps.refuse |= {"set_group": 5, "delete": 5}
        with self.assert_refused(LinkFailed, "delete"):
            self.house.delete_endpoint()

    def test_a_link_that_the_kernel_does_not_let_go_to_the_condemned_stays_for_good(self) -> None:
        self.house.create_endpoint()
        self.house.steps.refuse["set_group"] = errno.ENOBUFS
        self.house.delete_endpoint()
        self.assertEqual(self.house.link_names(), PLAIN_LINKS)
