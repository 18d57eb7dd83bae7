"""Any JSON to any method: no reply reports a bug, and only acknowledged calls change anything."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import MagicMock

from hypothesis import given, settings
from hypothesis import strategies as st

from macvlan_twisted.protocol.routes import all_methods

from .helpers import ENDPOINT, NETWORK, OTHER_ENDPOINT, OTHER_NETWORK, PluginHarness
from .site_cases import SiteTestCase

METHODS = sorted(all_methods(*(MagicMock() for _ in range(7))))
"""The paths alone: the calls go to the harness."""

WEIRD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def or_weird(sensible: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(sensible, sensible, sensible, sensible, WEIRD)


ADDRESSES = st.sampled_from(
    [
        "",
        "10.0.0.7/24",
        "10.0.0.7",
        "10.0.0.0",
        "192.168.1.1/24",
        "fd00::7/64",
        "fe80::1%eth0",
        "0.0.0.0/0",
        "x",
    ]
)
SUBNETS = st.sampled_from(
    ["", "10.0.0.0/24", "10.0.0.128/25", "192.168.1.0/24", "fd00::/64", "0.0.0.0/0", "::/0", "10.0.0.1/24"]
)
MACS = st.sampled_from(["", "02:00:00:00:00:77", "01:00:00:00:00:77", "02:00:00:00:00:02", "x"])
OPTIONS = st.dictionaries(
    st.sampled_from(
        ["parent", "mode", "mtu", "vlan_id", "source_macs", "nopromisc", "bclim", "com.docker.x", "weird"]
    ),
    or_weird(st.sampled_from(["", "eth0", "eth1", "eth1.20", "eth1.20.30", "lo", "passthru", "1400", "20"])),
    max_size=2,
)
SUBNET_DATA = st.lists(
    or_weird(
        st.fixed_dictionaries(
            {"Pool": or_weird(SUBNETS)},
            optional={
                "Gateway": or_weird(ADDRESSES),
                "AuxAddresses": or_weird(st.dictionaries(st.text(max_size=3), ADDRESSES, max_size=2)),
            },
        )
    ),
    max_size=2,
)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "NetworkID": or_weird(st.sampled_from([NETWORK, OTHER_NETWORK])),
        "EndpointID": or_weird(st.sampled_from([ENDPOINT, OTHER_ENDPOINT])),
        "Options": or_weird(
            st.one_of(
                OPTIONS,
                st.fixed_dictionaries(
                    {},
                    optional={
                        "com.docker.network.generic": or_weird(OPTIONS),
                        "com.docker.network.internal": or_weird(st.booleans()),
                        "RequestAddressType": or_weird(st.just("com.docker.network.gateway")),
                    },
                ),
            )
        ),
        "IPv4Data": or_weird(SUBNET_DATA),
        "IPv6Data": or_weird(SUBNET_DATA),
        "Interface": or_weird(
            st.fixed_dictionaries(
                {},
                optional={
                    "Address": or_weird(ADDRESSES),
                    "AddressIPv6": or_weird(ADDRESSES),
                    "MacAddress": or_weird(MACS),
                },
            )
        ),
        "AddressSpace": or_weird(st.just("MacvlanTwistedLocal")),
        "Pool": or_weird(SUBNETS),
        "SubPool": or_weird(SUBNETS),
        "V6": or_weird(st.booleans()),
        "PoolID": or_weird(st.sampled_from(["", "nowhere", "first", "second"])),
        "Address": or_weird(ADDRESSES),
    },
)


class AnyBodyTests(SiteTestCase):
    def state(self) -> tuple[Any, ...]:
        plugin, store = self.plugin, self.plugin.store
        return (
            plugin.records.all_rows(),
            dict(store.open),
            dict(store.allocated),
            dict(store.last),
            plugin.link_names(),
            dict(plugin.registry.networks),
            dict(plugin.registry.endpoints),
            dict(plugin.parents.made),
        )

    @settings(max_examples=120)
    @given(st.lists(st.tuples(st.sampled_from(METHODS), BODIES), min_size=1, max_size=6))
    def test_a_refused_call_changes_nothing_and_none_is_a_bug(
        self, calls: list[tuple[str, dict[str, Any]]]
    ) -> None:
        self.serve(PluginHarness())
        pools: list[str] = []
        for method, body in calls:
            sent = dict(body)
            if sent.get("PoolID") in ("first", "second") and pools:
                sent["PoolID"] = pools[0 if sent["PoolID"] == "first" else -1]
            before = self.state()
            reply = self.post_raw(method, json.dumps(sent).encode())
            self.assertEqual(reply.status, 200, (method, sent, reply.body))
            if "Err" in reply.body:
                self.assertTrue(reply.body["Err"].strip(), (method, sent))
                self.assertEqual(self.state(), before, (method, sent, reply.body))
            elif method == "IpamDriver.RequestPool":
                pools.append(reply.body["PoolID"])
        # What was acknowledged is the same after a restart.
        before = self.state()
        self.plugin = self.plugin.next_life()
        self.assertEqual(self.state(), before)

    @given(st.sampled_from(METHODS), st.binary(max_size=40))
    def test_any_bytes_change_nothing(self, method: str, raw: bytes) -> None:
        before = self.state()
        reply = self.post_raw(method, raw)
        self.assertEqual(reply.status, 200, reply.body)
        self.assertEqual(self.state(), before)
