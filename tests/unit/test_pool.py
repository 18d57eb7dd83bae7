"""What RequestPool asks for becomes a pool, whose id describes it."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import IPNetwork, parse_address, parse_interface, parse_network
from macvlan_twisted.config import Config
from macvlan_twisted.errors import RequestRefused
from macvlan_twisted.ipam.options import parse_options
from macvlan_twisted.ipam.pool import Pool, id_without_nonce, pool_id_for, reported_subnet
from macvlan_twisted.ipam.pool_plan import PoolPlanner, plan_pool, refuse_overlap
from macvlan_twisted.ipam.pool_registry import MAX_CURSORS, PoolRegistry
from macvlan_twisted.ipam.requests import RequestPool
from macvlan_twisted.protocol.json_reader import MAX_TEXT_LENGTH
from macvlan_twisted.state.serialize import from_document, to_document
from macvlan_twisted.testing.state import MemoryAddressStore

from .helpers import LAN

TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
SUBNETS = st.one_of(
    st.sampled_from(["10.0.0.0/8", "192.168.1.0/24", "fd00::/64", "10.1.2.3/32"]).map(parse_network)
)


def read_id(pool_id: str) -> tuple[RequestPool, str]:
    """The request and the nonce that an id was made of."""
    space, pool, part, options, nonce = pool_id.split(";")
    network: IPNetwork | None = None if pool in ("any4", "any6") else parse_network(pool)
    return (
        RequestPool(
            address_space=unquote(space),
            pool=network,
            sub_pool=parse_network(part) if part else None,
            options={
                unquote(key): unquote(value)
                for key, _, value in (each.partition("=") for each in options.split("&") if each)
            },
            v6=pool == "any6" or (network is not None and network.version == 6),
        ),
        nonce,
    )


def asked(pool: str | None, part: str | None = None, v6: bool = False, **options: str) -> RequestPool:
    return RequestPool(
        "Local",
        None if pool is None else parse_network(pool),
        None if part is None else parse_network(part),
        options,
        v6,
    )


def planned(pool: str | None, part: str | None = None, v6: bool = False, **options: str) -> Pool:
    return plan_pool(asked(pool, part, v6, **options), LAN, "0a1b2c3d")


FOREIGN: Any = {"com.docker.network.x": "y" * 4000}


class IdTests(SynchronousTestCase):
    @given(
        TEXTS,
        st.none() | SUBNETS,
        st.none() | SUBNETS,
        st.dictionaries(st.sampled_from(["parent", "dhcp", "identity"]), TEXTS, max_size=3),
        st.booleans(),
    )
    def test_id_describes_the_pool(
        self, space: str, pool: IPNetwork | None, part: IPNetwork | None, options: dict[str, str], v6: bool
    ) -> None:
        request = RequestPool(space, pool, part, options, v6 if pool is None else pool.version == 6)
        self.assertEqual(read_id(pool_id_for(request, "0a1b2c3d")), (request, "0a1b2c3d"))

    def test_id_is_never_longer_than_a_call_accepts(self) -> None:
        for request in (
            RequestPool("\U0001f433" * MAX_TEXT_LENGTH, None, None, {}),
            asked("10.0.0.0/8", **FOREIGN),
            asked("10.0.0.0/8", dhcp_vendor_class="\U0001f433" * 255, parent="eth0"),
        ):
            ids = [pool_id_for(request, nonce) for nonce in ("0a1b2c3d", "4e5f6071")]
            self.assertLessEqual(max(map(len, ids)), MAX_TEXT_LENGTH)
            self.assertEqual(len(set(ids)), 2)
            self.assertEqual(*map(id_without_nonce, ids))

    def test_id_leaves_out_options_of_others(self) -> None:
        plain = asked("10.0.0.0/8", parent="eth0")
        foreign = asked("10.0.0.0/8", parent="eth0", **FOREIGN)
        self.assertEqual(pool_id_for(plain, "0"), pool_id_for(foreign, "0"))

    def test_id_of_an_earlier_version_describes_the_same_pool(self) -> None:
        """It had the options of others."""
        earlier = "Local;10.0.0.0/8;;com.docker.network.x=y&parent=eth0;0a1b2c3d"
        self.assertEqual(
            id_without_nonce(earlier), id_without_nonce(pool_id_for(asked("10.0.0.0/8", parent="eth0"), "0"))
        )


class PlanTests(SynchronousTestCase):
    def refused(self, request: RequestPool, *words: str, config: Config = LAN) -> None:
        with self.assertRaises(RequestRefused) as caught:
            plan_pool(request, config, "0")
        for word in words:
            self.assertIn(word, str(caught.exception))

    def test_ranges_without_a_lan_are_refused(self) -> None:
        for pool, words in {
            "224.0.0.0/24": "224.0.0.0/4 (multicast)",
            "239.1.0.0/16": "multicast",
            "127.0.0.0/8": "127.0.0.0/8 (loopback)",
            "127.9.0.0/16": "loopback",
            "240.0.0.0/8": "class E",
            "255.255.255.0/24": "class E",
            "0.0.0.0/8": "0.0.0.0/8 (this network)",
            "0.1.0.0/16": "this network",
            "168.0.0.0/5": "169.254.0.0/16 (link-local)",
            "0.0.0.0/1": "this network",
            "ff02::/64": "ff00::/8 (multicast)",
            "fe80::/64": "fe80::/10 (link-local)",
            "::/64": "loopback",
            "::1/128": "loopback",
        }.items():
            with self.subTest(pool):
                self.refused(asked(pool, v6=":" in pool), pool, words, "--subnet")

    def test_missing_subnet_names_the_host_interface_only_if_that_has_one(self) -> None:
        for config, text in (
            (
                evolve(LAN, host_interface="eth0"),
                "for parent eth1, only for the host interface eth0: specify --subnet and --gateway",
            ),
            (Config(host_interface="eth0"), "for parent eth1: specify --subnet and --gateway"),
            (Config(), "for parent eth1: specify --subnet and --gateway"),
            (
                Config(host_interface="eth1"),
                "for parent eth1: specify --subnet and --gateway, or start the plugin with --macvlan-subnet",
            ),
        ):
            self.refused(asked(None, parent="eth1"), text, config=config)

    def test_other_ranges_are_accepted(self) -> None:
        for pool in (
            "0.0.0.0/0",
            "169.254.0.0/16",
            "169.254.7.0/24",
            "1.0.0.0/8",
            "126.0.0.0/8",
            "128.0.0.0/8",
            "169.253.0.0/16",
            "223.255.255.0/24",
            "::/0",
            "fd00::/64",
            "2001:db8::/64",
        ):
            self.assertEqual(str(planned(pool, v6=":" in pool).prefix), pool)

    def test_pool_is_planned(self) -> None:
        lan, ten, part = map(parse_network, ("192.168.1.0/24", "10.0.0.0/8", "10.1.0.0/16"))
        for pool, expected in (
            (planned("10.0.0.0/8", "10.1.0.0/16"), (ten, part, "eth0", False)),
            (planned("10.0.0.0/8", parent="eth1"), (ten, None, "eth1", False)),
            (planned("10.0.0.0/8", "10.0.0.0/8"), (ten, None, "eth0", False)),
            (planned(None), (lan, None, "eth0", True)),
        ):
            self.assertEqual((pool.prefix, pool.part, pool.parent, pool.any_subnet), expected)
        self.assertEqual(planned("10.0.0.0/8", "10.0.0.0/8").cursor_key, planned("10.0.0.0/8").cursor_key)

    def test_pool_without_a_subnet_replies_with_a_zero_prefix(self) -> None:
        self.assertEqual(reported_subnet(planned(None)), parse_network("0.0.0.0/0"))
        six = evolve(planned(None), prefix=parse_network("fd00::/64"))
        self.assertEqual(reported_subnet(six), parse_network("::/0"))
        self.assertEqual(reported_subnet(planned("10.0.0.0/8")), parse_network("10.0.0.0/8"))

    def test_gateway_is_in_the_reply_only_without_a_subnet(self) -> None:
        no_leases: Any = None
        planner = PoolPlanner(LAN, no_leases, str)
        self.assertEqual(planner.gateway_in_data(planned(None)), parse_interface("192.168.1.1/24"))
        self.assertIsNone(planner.gateway_in_data(planned("192.168.1.0/24")))
        without = PoolPlanner(evolve(LAN, gateways=()), no_leases, str)
        self.assertIsNone(without.gateway_in_data(planned(None)))

    def test_configured_range_applies_to_its_own_subnet_only(self) -> None:
        config = evolve(LAN, ip_ranges=(parse_network("192.168.1.64/26"),))
        for request, part in (
            (asked(None), "192.168.1.64/26"),
            (asked("192.168.1.0/24"), "192.168.1.64/26"),
            (asked("192.168.1.0/24", "192.168.1.128/26"), "192.168.1.128/26"),
            (asked("192.168.0.0/16"), None),
        ):
            expected = None if part is None else parse_network(part)
            self.assertEqual(plan_pool(request, config, "0").part, expected)

    def test_contradictions_are_refused_with_both_values(self) -> None:
        for request, words in (
            (asked("10.0.0.0/8", "11.0.0.0/16"), ("11.0.0.0/16", "10.0.0.0/8")),
            (asked("10.0.0.0/8", "fd00::/80"), ("fd00::/80",)),
            (asked("10.1.0.0/16", "10.0.0.0/8"), ("10.0.0.0/8",)),
            (asked("10.0.0.0/8", v6=True), ("10.0.0.0/8", "IPv6")),
            (asked("fd00::/64"), ("fd00::/64", "IPv4")),
            # Without a subnet it would be that of another LAN.
            (asked(None, parent="eth1"), ("eth1", "--subnet")),
            (asked(None, v6=True), ("IPv6", "--subnet")),
        ):
            self.refused(request, *words)
        self.refused(asked(None), "--subnet", "--macvlan-subnet", config=Config())

    def test_pool_survives_serialization(self) -> None:
        for pool in (planned("10.0.0.0/8", "10.1.0.0/16"), planned(None), planned("fd00::/64", v6=True)):
            self.assertEqual(from_document(Pool, to_document(pool)), pool)


class OptionTests(SynchronousTestCase):
    def test_invalid_options_are_refused_by_name(self) -> None:
        for options, words in (
            ({"parnet": "eth0"}, ("--ipam-opt parnet", "use one of", "parent")),
            ({"parent": "a b"}, ("--ipam-opt parent",)),
        ):
            with self.assertRaises(RequestRefused) as caught:
                parse_options(options)
            for word in words:
                self.assertIn(word, str(caught.exception))

    def test_options_of_docker_are_ignored(self) -> None:
        self.assertIsNone(parse_options({"com.docker.network.x": "y"}).parent)


class OverlapTests(SynchronousTestCase):
    def overlap(self, first: Pool, second: Pool) -> str | None:
        try:
            refuse_overlap(second, [first])
        except RequestRefused as refusal:
            return str(refusal)
        return None

    def test_overlap_on_one_parent_is_refused_with_the_remedy(self) -> None:
        message = self.overlap(planned("10.0.0.0/8"), planned("10.1.0.0/16")) or ""
        for word in ("10.1.0.0/16", "10.0.0.0/8", "eth0", "--ip-range"):
            self.assertIn(word, message)
        self.assertIsNotNone(self.overlap(planned("10.1.0.0/16"), planned("10.0.0.0/8")))

    def test_pools_without_overlap_are_allowed(self) -> None:
        ten = planned("10.0.0.0/8")
        for other in (
            planned("10.0.0.0/8"),
            planned("10.0.0.0/8", "10.1.0.0/16"),
            planned("11.0.0.0/8"),
            planned("10.1.0.0/16", parent="eth1"),
            planned("fd00::/64", v6=True),
            evolve(planned("10.1.0.0/16"), address_space="Global"),
        ):
            self.assertIsNone(self.overlap(ten, other))

    def test_pools_of_one_subnet_share_a_set(self) -> None:
        self.assertEqual(planned("10.0.0.0/8").shared_set, planned("10.0.0.0/8", "10.1.0.0/16").shared_set)
        self.assertNotEqual(planned("10.0.0.0/8").shared_set, planned("10.0.0.0/8", parent="eth1").shared_set)
        self.assertEqual(planned(None).shared_set, planned("192.168.1.0/24").shared_set)

    def test_router_is_not_part_of_the_shared_set(self) -> None:
        other = evolve(LAN, gateways=(parse_address("192.168.1.2"),))
        self.assertEqual(
            plan_pool(asked("192.168.1.0/24"), other, "0").shared_set, planned("192.168.1.0/24").shared_set
        )


class CursorTests(SynchronousTestCase):
    def setUp(self) -> None:
        store = MemoryAddressStore()
        store.last = {f"made up {number}": parse_address("10.0.0.1") for number in range(MAX_CURSORS - 1)}
        self.pools = PoolRegistry(store)
        self.pools.load()

    def test_oldest_cursors_are_forgotten(self) -> None:
        self.assertEqual(self.pools.advance(planned("10.1.0.0/24"), 7), ())
        self.assertEqual(self.pools.advance(planned("10.2.0.0/24"), 7), ("made up 0",))
        self.assertEqual(self.pools.advance(planned("10.2.0.0/24"), 8), ())
        self.assertEqual(self.pools.advance(planned("10.3.0.0/24"), 7), ("made up 1",))
        self.assertEqual(len(self.pools.cursors), MAX_CURSORS)

    def test_cursors_of_open_and_recent_pools_stay(self) -> None:
        open_pool, recent = planned("10.1.0.0/24"), planned("10.2.0.0/24")
        self.pools.add(open_pool)
        self.pools.cursors = {open_pool.cursor_key: 1, recent.cursor_key: 2, **self.pools.cursors}
        self.pools.advance(recent, 3)
        self.assertEqual(self.pools.cursors[open_pool.cursor_key], 1)
        self.assertEqual(self.pools.cursors[recent.cursor_key], 3)
        self.assertNotIn("made up 0", self.pools.cursors)
