"""Every call as the engine writes it, and its reply."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from macvlan_twisted.protocol.messages import LOCAL_ADDRESS_SPACE

from .helpers import ENDPOINT, LAN, NETWORK, OTHER_ENDPOINT, PLAIN_LINKS, PluginHarness
from .site_cases import SiteTestCase

BOTH = {"NetworkID": NETWORK, "EndpointID": ENDPOINT}


class HandshakeTests(SiteTestCase):
    def test_calls_without_a_body_have_constant_replies(self) -> None:
        for method, reply in (
            ("Plugin.Activate", {"Implements": ["NetworkDriver", "IpamDriver"]}),
            (
                "NetworkDriver.GetCapabilities",
                {"Scope": "local", "ConnectivityScope": "global", "GwAllocChecker": True},
            ),
            ("IpamDriver.GetCapabilities", {"RequiresMACAddress": False, "RequiresRequestReplay": False}),
            (
                "IpamDriver.GetDefaultAddressSpaces",
                {
                    "LocalDefaultAddressSpace": "MacvlanTwistedLocal",
                    "GlobalDefaultAddressSpace": "MacvlanTwistedGlobal",
                },
            ),
        ):
            answer = self.post_raw(method, b"")
            self.assertEqual((answer.status, answer.body), (200, reply))

    def test_discovery_calls_succeed(self) -> None:
        self.assertEqual(self.post("NetworkDriver.DiscoverNew", DiscoveryType=1, DiscoveryData={}), {})
        self.assertEqual(self.post("NetworkDriver.DiscoverDelete", DiscoveryType=1), {})


def network(**more: Any) -> dict[str, Any]:
    return {
        "NetworkID": NETWORK,
        "Options": {
            "com.docker.network.enable_ipv6": False,
            "com.docker.network.generic": {"parent": "eth1"},
        },
        "IPv4Data": [
            {
                "AddressSpace": "LocalDefault",
                "Pool": "10.9.0.0/16",
                "Gateway": "10.9.0.1/16",
                "AuxAddresses": {"printer": "10.9.0.2/16"},
            }
        ],
        "IPv6Data": [],
        **more,
    }


def endpoint(**interface: str) -> dict[str, Any]:
    return {
        **BOTH,
        "Interface": {"Address": "10.9.0.7/16", "AddressIPv6": "", "MacAddress": "", **interface},
        "Options": {"com.docker.network.endpoint.exposedports": [], "com.docker.network.portmap": []},
    }


class NetworkDriverTests(SiteTestCase):
    def create(self, **more: Any) -> None:
        self.assertEqual(self.post("NetworkDriver.CreateNetwork", **network(**more)), {})

    def test_all_calls_of_a_containers_life_succeed(self) -> None:
        self.assertEqual(
            self.post("NetworkDriver.GwAllocCheck", Options={}), {"SkipIPv4": True, "SkipIPv6": True}
        )
        self.create()
        self.assertEqual(
            self.post("NetworkDriver.CreateEndpoint", **endpoint()),
            {"Interface": {"MacAddress": "7a:42:0a:09:00:07"}},
        )
        (link,) = self.plugin.foreign_to(PLAIN_LINKS)
        self.assertEqual(
            self.post("NetworkDriver.Join", **BOTH, SandboxKey="/var/run/docker/netns/0", Options={}),
            {"InterfaceName": {"SrcName": link, "DstPrefix": "eth"}, "Gateway": "10.9.0.1"},
        )
        for method in ("ProgramExternalConnectivity", "RevokeExternalConnectivity", "Leave", "Leave"):
            self.assertEqual(self.post(f"NetworkDriver.{method}", **BOTH), {})
        info = self.post("NetworkDriver.EndpointOperInfo", **BOTH)["Value"]
        self.assertEqual((info["link"], info["parent"]), (link, "eth1"))
        for _ in range(2):
            self.assertEqual(self.post("NetworkDriver.DeleteEndpoint", **BOTH), {})
        for _ in range(2):
            self.assertEqual(self.post("NetworkDriver.DeleteNetwork", NetworkID=NETWORK), {})
        self.assert_nothing_left()

    def test_a_requested_mac_is_not_repeated_in_the_reply(self) -> None:
        self.create()
        reply = self.post("NetworkDriver.CreateEndpoint", **endpoint(MacAddress="02:00:00:00:00:77"))
        self.assertEqual(reply, {"Interface": {}})

    def test_no_gateway_disables_the_engines_gateway_bridge(self) -> None:
        self.create(IPv4Data=[{"Pool": "10.9.0.0/16"}])
        self.post("NetworkDriver.CreateEndpoint", **endpoint())
        reply = self.post("NetworkDriver.Join", **BOTH)
        self.assertIs(reply["DisableGatewayService"], True)
        self.assertNotIn("Gateway", reply)

    def test_gateways_are_addresses_without_prefix(self) -> None:
        self.create(IPv6Data=[{"Pool": "fd00::/64", "Gateway": "fd00::1/64", "AuxAddresses": None}])
        self.post("NetworkDriver.CreateEndpoint", **endpoint(AddressIPv6="fd00::7/64"))
        reply = self.post("NetworkDriver.Join", **BOTH)
        self.assertEqual((reply["Gateway"], reply["GatewayIPv6"]), ("10.9.0.1", "fd00::1"))
        self.assertNotIn("DisableGatewayService", reply)

    def test_an_ipv6_gateway_alone_is_enough(self) -> None:
        self.create(IPv4Data=[], IPv6Data=[{"Pool": "fd00::/64", "Gateway": "fd00::1/64"}])
        self.post("NetworkDriver.CreateEndpoint", **endpoint(Address="", AddressIPv6="fd00::7/64"))
        reply = self.post("NetworkDriver.Join", **BOTH)
        self.assertEqual(reply["GatewayIPv6"], "fd00::1")
        self.assertNotIn("DisableGatewayService", reply)

    def test_the_null_ipam_driver_is_accepted(self) -> None:
        self.create(IPv4Data=[{"AddressSpace": "null", "Pool": "0.0.0.0/0"}])
        self.post("NetworkDriver.CreateEndpoint", **endpoint(Address=""))
        self.assertNotIn("Gateway", self.post("NetworkDriver.Join", **BOTH))

    def test_the_internal_option_makes_a_network_internal(self) -> None:
        options = {"com.docker.network.internal": True, "com.docker.network.generic": {}}
        self.create(Options=options)
        self.assertTrue(self.plugin.registry.networks[NETWORK].internal)

    def test_options_without_the_generic_member_are_empty(self) -> None:
        self.create(Options={"com.docker.network.internal": False})
        self.assertEqual(self.plugin.registry.networks[NETWORK].parent, "eth0")

    def test_allocation_returns_the_options(self) -> None:
        options = {"parent": "eth5", "com.docker.network.x": "y"}
        reply = self.post("NetworkDriver.AllocateNetwork", NetworkID=NETWORK, Options=options, IPv6Data=None)
        self.assertEqual(reply, {"Options": options})
        self.assertEqual(self.post("NetworkDriver.FreeNetwork", NetworkID=NETWORK), {})
        self.assert_nothing_left()

    def test_errors_have_the_members_of_both_subsystems(self) -> None:
        self.refused("NetworkDriver.Join", ENDPOINT[:12], **BOTH)
        self.refused(
            "NetworkDriver.CreateNetwork",
            "parnet",
            **network(Options={"com.docker.network.generic": {"parnet": "x"}}),
        )
        self.refused("IpamDriver.RequestAddress", "nowhere", PoolID="nowhere", Address="")


class IpamTests(SiteTestCase):
    def pool(self, **more: Any) -> Any:
        request = {"AddressSpace": "Local", "Pool": "10.9.0.0/16", "SubPool": "", "Options": {}, "V6": False}
        return self.post("IpamDriver.RequestPool", **{**request, **more})

    def test_all_calls_of_a_pools_life_succeed(self) -> None:
        granted = self.pool(Options=None)
        self.assertEqual((granted["Pool"], granted["Data"]), ("10.9.0.0/16", {}))
        pool = granted["PoolID"]
        reply = self.post(
            "IpamDriver.RequestAddress",
            PoolID=pool,
            Address="",
            Options={"RequestAddressType": "com.docker.network.gateway"},
        )
        self.assertEqual(reply["Address"], "10.9.0.1/16")
        for options, address in (
            (None, "10.9.0.2/16"),
            ({"com.docker.network.endpoint.name": "c"}, "10.9.0.3/16"),
        ):
            reply = self.post("IpamDriver.RequestAddress", PoolID=pool, Address="", Options=options)
            self.assertEqual(reply, {"Address": address, "Data": {}})
        self.assertEqual(self.post("IpamDriver.ReleaseAddress", PoolID=pool, Address="10.9.0.2"), {})
        for _ in range(2):
            self.assertEqual(self.post("IpamDriver.ReleasePool", PoolID=pool), {})
        self.assertEqual((self.plugin.store.open, self.plugin.store.allocated), ({}, {}))

    def test_a_pool_without_subnet_returns_the_gateway_as_data(self) -> None:
        granted = self.pool(Pool="")
        self.assertEqual(granted["Pool"], "0.0.0.0/0")
        self.assertEqual(granted["Data"], {"com.docker.network.gateway": "192.168.1.1/24"})

    def test_each_pool_has_its_own_id(self) -> None:
        self.assertNotEqual(self.pool()["PoolID"], self.pool()["PoolID"])

    def test_releasing_what_does_not_exist_succeeds(self) -> None:
        for pool in ("", "nowhere"):
            self.assertEqual(self.post("IpamDriver.ReleaseAddress", PoolID=pool, Address="10.9.0.2"), {})
            self.assertEqual(self.post("IpamDriver.ReleasePool", PoolID=pool), {})

    def test_auxiliary_address_is_reserved_once_the_network_exists(self) -> None:
        """In the order of engine 29: addresses first, then the network."""
        self.serve(PluginHarness(config=evolve(LAN, gateways=())))
        pool = self.pool(Pool="10.9.0.0/16")["PoolID"]
        aux = {"PoolID": pool, "Address": "10.9.0.2", "Options": None}
        self.assertEqual(self.post("IpamDriver.RequestAddress", **aux)["Address"], "10.9.0.2/16")
        body = network()
        body["IPv4Data"][0] |= {
            "AddressSpace": LOCAL_ADDRESS_SPACE,
            "AuxAddresses": {"printer": "10.9.0.2/16"},
        }
        self.post("NetworkDriver.CreateNetwork", **body)
        self.refused("IpamDriver.RequestAddress", "10.9.0.2", "reserved", **aux)
        self.post("IpamDriver.RequestAddress", PoolID=pool, Address="10.9.0.7")
        reply = self.post("NetworkDriver.CreateEndpoint", **{**endpoint(), "EndpointID": OTHER_ENDPOINT})
        self.assertEqual(reply, {"Interface": {"MacAddress": "7a:42:0a:09:00:07"}})
