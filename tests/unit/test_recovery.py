"""State that was lost is what it was, as far as the engine and the kernel know."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import parse_address, parse_interface, parse_network
from macvlan_twisted.commands.stale_sandboxes import engine_sandboxes
from macvlan_twisted.engine.blocking_client import (
    BlockingEngineClient,
    FoundEndpoint,
    FoundNetwork,
    FoundSubnet,
    Inspection,
    found_network,
    inspect_networks,
)
from macvlan_twisted.engine.client import EngineError
from macvlan_twisted.errors import NotFound, StartupError, StateError
from macvlan_twisted.ipam.requests import Purpose, ReleaseAddress, RequestAddress, RequestPool
from macvlan_twisted.recovery.link_evidence import instances_of, refuse_unknown_links
from macvlan_twisted.recovery.rebuild import RebuildResult, rebuild
from macvlan_twisted.recovery.snapshot import Snapshot
from macvlan_twisted.state.database import ADDRESSES, Put
from macvlan_twisted.state.interfaces import Allocation, RecordKind
from macvlan_twisted.state.serialize import from_document, to_document
from macvlan_twisted.testing.kernel import FakeKernel, nic

from .database_cases import LedgerTestCase
from .helpers import ENDPOINT, LAN, NETWORK, PluginHarness, PluginTestCase, network_request, subnet

OTHER = "2" * 64
DRIVER = LAN.plugin_name


def found(
    plugin: PluginHarness, network_id: str = NETWORK, *, ipam: str = "default", **words: Any
) -> FoundNetwork:
    """What an engine tells of a network that *house* has, and of the endpoints on it."""
    network = plugin.registry.networks[network_id]
    endpoints = tuple(
        FoundEndpoint(
            each.endpoint_id, "box", each.mac, each.reported_address or each.address, each.address_v6
        )
        for each in plugin.registry.endpoints_of(network_id)
    )
    subnets = tuple(FoundSubnet(each.pool, None, each.gateway, each.auxiliary) for each in network.subnets)
    words = {"options": {}, "internal": network.internal, **words}
    return FoundNetwork(
        network_id, "lan", DRIVER, words.pop("options"), words.pop("internal"), ipam, {}, subnets, endpoints
    )


def rebuilt(plugin: PluginHarness, *networks: FoundNetwork, before: Snapshot | None = None) -> RebuildResult:
    return rebuild(
        before or Snapshot(),
        Inspection(networks, picks_gateways=False),
        plugin.config,
        plugin.kernel,
        plugin.kernel.links(),
        plugin.records.instance,
        1.0e9,
    )


class NetworkTests(PluginTestCase):
    def assert_rebuilt(self, internal: bool = False, **options: str) -> Snapshot:
        """What is rebuilt of a network is what its creation made of it."""
        self.plugin.create_network(internal=internal, **options)
        self.plugin.create_endpoint()
        made = self.plugin.registry
        result = rebuilt(self.plugin, found(self.plugin, options=options, internal=internal))
        self.assertEqual(result.missing, [])
        self.assertEqual(result.snapshot.networks, dict(made.networks))
        self.assertEqual(result.snapshot.endpoints, dict(made.endpoints))
        self.assertEqual(result.snapshot.made_links, made.made_links)
        self.assertEqual(result.snapshot.host_links, made.host_links)
        return result.snapshot

    def test_a_plain_one(self) -> None:
        self.assert_rebuilt(parent="eth1")

    def test_options(self) -> None:
        self.assert_rebuilt(
            parent="eth1",
            mode="private",
            mtu="1400",
            bcqueuelen="7",
            identity="random",
            announce="false",
        )

    def test_a_vlan_that_we_made(self) -> None:
        snapshot = self.assert_rebuilt(parent="eth1.20")
        self.assertEqual(snapshot.made_links["eth1.20"].lower, "eth1")

    def test_a_vlan_that_went_with_a_reboot_is_made_again(self) -> None:
        self.plugin.create_network(parent="eth1", vlan_id="20")
        told = found(self.plugin, options={"parent": "eth1", "vlan_id": "20"})
        made = dict(self.plugin.registry.made_links)
        self.plugin.kernel.delete("eth1.20")
        self.assertEqual(rebuilt(self.plugin, told).snapshot.made_links, made)

    def test_a_vlan_of_somebody_else_is_not_taken_for_ours(self) -> None:
        plugin = PluginHarness(
            FakeKernel([nic("eth1", 3), nic("eth1.20", 4, kind="vlan", vlan_id=20, lower_index=3)])
        )
        plugin.create_network(parent="eth1.20")
        self.assertEqual(
            rebuilt(plugin, found(plugin, options={"parent": "eth1.20"})).snapshot.made_links, {}
        )

    def test_a_dummy_link(self) -> None:
        self.plugin.create_network(internal=True)
        told = found(self.plugin, options={}, internal=True)
        snapshot = rebuilt(self.plugin, told).snapshot
        self.assertTrue(snapshot.networks[NETWORK].on_dummy)
        self.assertEqual(list(snapshot.made_links), [snapshot.networks[NETWORK].parent])

    def test_access_from_the_host(self) -> None:
        options = {"parent": "eth1", "host_access": "true", "host_address": "192.168.1.200"}
        self.plugin.create_network(**options)
        made = self.plugin.registry.networks[NETWORK]
        snapshot = rebuilt(self.plugin, found(self.plugin, options=options)).snapshot
        self.assertEqual(snapshot.networks[NETWORK].host_addresses, made.host_addresses)
        self.assertEqual(snapshot.host_links, self.plugin.registry.host_links)

    def test_a_parent_that_is_not_there_is_awaited(self) -> None:
        self.plugin.create_network(parent="eth1")
        self.plugin.create_endpoint()
        told = found(self.plugin, options={"parent": "eth1"})
        self.plugin.kernel = FakeKernel([nic("eth0", 2)])
        result = rebuilt(self.plugin, told)
        self.assertEqual(result.snapshot.networks[NETWORK].parent, "eth1")
        self.assertEqual(list(result.snapshot.endpoints), [ENDPOINT])

    def test_options_that_mean_nothing_to_this_version_are_told_and_others_go_on(self) -> None:
        self.plugin.create_network(parent="eth1")
        told = found(self.plugin, options={"parent": "eth1"})
        strange = evolve(told, network_id=OTHER, name="strange", options={"colour": "blue"})
        result = rebuilt(self.plugin, strange, told)
        self.assertEqual(list(result.snapshot.networks), [NETWORK])
        self.assertEqual(len(result.missing), 1)
        self.assertIn("strange", result.missing[0])
        self.assertIn("colour", result.missing[0])

    def test_a_gateway_that_an_old_engine_made_up_is_seen_at_a_container_or_else_supposed(self) -> None:
        plain = FoundNetwork(
            NETWORK,
            "lan",
            DRIVER,
            {"parent": "eth1"},
            False,
            "default",
            {},
            (FoundSubnet(parse_network("10.0.0.0/24"), parse_network("10.0.0.128/25")),),
        )
        shown = evolve(plain, endpoints=(FoundEndpoint(ENDPOINT, "box", gateway=parse_address("10.0.0.9")),))
        for told, expected in ((plain, "10.0.0.128"), (shown, "10.0.0.9")):
            result = rebuild(
                Snapshot(),
                Inspection((told,), picks_gateways=True),
                LAN,
                self.plugin.kernel,
                self.plugin.kernel.links(),
                "0123abcd",
                1.0e9,
            )
            self.assertEqual(str(result.snapshot.networks[NETWORK].subnets[0].gateway), expected)
        self.assertIsNone(rebuilt(self.plugin, plain).snapshot.networks[NETWORK].subnets[0].gateway)

    def test_what_state_has_stays_and_what_it_lacks_is_added(self) -> None:
        self.plugin.create_network(parent="eth1")
        self.plugin.create_endpoint()
        told = found(self.plugin, options={"parent": "eth1"})
        network = evolve(self.plugin.registry.networks[NETWORK], mtu=1234)
        before = Snapshot(networks={NETWORK: network, OTHER: evolve(network, network_id=OTHER)})
        snapshot = rebuilt(self.plugin, told, before=before).snapshot
        self.assertEqual(snapshot.networks, before.networks)
        self.assertEqual(list(snapshot.endpoints), [ENDPOINT])
        again = rebuilt(self.plugin, told, before=snapshot).snapshot
        self.assertEqual(again.changes_since(snapshot), [])


class KeptTests(LedgerTestCase):
    def read(self, purpose: Purpose) -> Snapshot:
        database = self.open(self.make_directory())
        database.commit([Put(ADDRESSES, ("Local;10.0.0.0/29;;;lost", "10.0.0.1", purpose.value))])
        return Snapshot.of(database)

    def test_a_state_with_which_the_service_starts_is_moved_aside(self) -> None:
        """Reserved addresses of a pool that was never opened are freed by a start."""
        for purpose in (Purpose.GATEWAY, Purpose.AUXILIARY, Purpose.HOST):
            self.assertEqual(self.read(purpose), Snapshot())

    def test_a_containers_address_without_its_pool_is_taken_for_sound(self) -> None:
        with self.assertRaisesRegex(StateError, "10.0.0.1 is a container's address of pool Local;"):
            self.read(Purpose.ENDPOINT)


class UnlikelyEngine(BlockingEngineClient):
    def __init__(self, answers: dict[str, Any]) -> None:
        super().__init__("unix:///nowhere")
        self._answers = answers

    def get(self, path: str) -> Any:
        return self._answers.get(path, {})


class UnlikelyEngineTests(SynchronousTestCase):
    def test_an_answer_that_is_none_ends_in_a_traceback(self) -> None:
        """So a command tells of it, and a start."""
        for networks in ("text", [7], None, [{"Driver": DRIVER}], [{"Driver": DRIVER, "Id": "1"}]):
            with self.assertRaisesRegex(EngineError, "not understood"):
                inspect_networks(UnlikelyEngine({"/networks": networks}), DRIVER)
        unlikely: list[Any] = [{"message": "x"}, [7], None, [{}]]
        for containers in unlikely:
            with self.assertRaisesRegex(EngineError, "not understood"):
                engine_sandboxes(UnlikelyEngine({"/containers/json?all=1": containers}))


class PoolTests(PluginTestCase):
    """The engine goes on calling pools by the ids that it was told once."""

    def setUp(self) -> None:
        super().setUp()
        self.ids: list[str] = []
        for network in (NETWORK, OTHER):
            request = RequestPool(
                "MacvlanTwistedLocal", parse_network("10.0.0.0/24"), None, {"parent": "eth1"}
            )
            pool_id = self.plugin.wait(self.plugin.pools.request_pool(request)).pool_id
            gateway = parse_address("10.0.0.1")
            self.plugin.wait(
                self.plugin.addresses.request_address(RequestAddress(pool_id, gateway, Purpose.GATEWAY))
            )
            ours = evolve(subnet("10.0.0.0/24", "10.0.0.1"), managed_here=True)
            self.plugin.wait(
                self.plugin.networks.create(network_request(network, subnets=(ours,), parent="eth1"))
            )
            self.plugin.wait(self.plugin.pool_binding.network_made("eth1", [(ours.pool, ())]))
            address = self.plugin.wait(self.plugin.addresses.request_address(RequestAddress(pool_id, None)))
            self.plugin.create_endpoint(network[:1] * 63 + "e", network, str(address))
            self.ids.append(pool_id)
        self.plugin = self.recovered(NETWORK, OTHER)

    def recovered(self, *networks: str) -> PluginHarness:
        told = [
            evolve(
                found(self.plugin, each, ipam=DRIVER, options={"parent": "eth1"}),
                ipam_options={"parent": "eth1"},
            )
            for each in networks
        ]
        snapshot = rebuilt(self.plugin, *told).snapshot
        plugin = PluginHarness(self.plugin.kernel)
        for key, pool in snapshot.pools.items():
            plugin.wait(_done(plugin.store.open_pool(key, to_document(pool))))
        for (pool_id, address), purpose in snapshot.allocations.items():
            plugin.wait(_done(plugin.store.claim(Allocation(pool_id, address, purpose.value), "x", False)))
        for network in snapshot.networks.values():
            plugin.wait(
                _done(plugin.records.save(RecordKind.NETWORK, network.network_id, to_document(network)))
            )
        return plugin.next_life()

    def address(self, pool_id: str, wanted: str | None = None) -> str:
        request = RequestAddress(pool_id, None if wanted is None else parse_address(wanted))
        return str(self.plugin.wait(self.plugin.addresses.request_address(request)).ip)

    def test_an_address_in_use_is_handed_out_under_an_id_that_was_given_before(self) -> None:
        for pool_id in self.ids:
            self.assertNotIn(self.address(pool_id), ("10.0.0.1", "10.0.0.2", "10.0.0.3"))

    def test_an_address_that_is_released_is_free(self) -> None:
        self.plugin.wait(
            self.plugin.addresses.release_address(ReleaseAddress(self.ids[1], parse_address("10.0.0.3")))
        )
        self.assertEqual(self.address(self.ids[0], "10.0.0.3"), "10.0.0.3")

    def test_the_pool_goes_with_the_last_of_its_networks_also_over_a_restart(self) -> None:
        gateway = ReleaseAddress(self.ids[0], parse_address("10.0.0.1"))
        self.plugin.wait(self.plugin.addresses.release_address(gateway))
        self.plugin.wait(self.plugin.pools.release_pool(self.ids[0]))
        self.plugin.wait(self.plugin.pools.release_pool(self.ids[0]))  # again: nothing to release
        self.plugin = self.plugin.next_life()
        self.assertNotEqual(
            self.address(self.ids[1]), "10.0.0.1", "the gateway of the other one was handed out"
        )
        self.plugin.wait(self.plugin.pools.release_pool(self.ids[1]))
        self.assertEqual(self.plugin.store.pools(), {})
        self.assertEqual(self.plugin.store.claims(), [])

    def test_an_id_of_another_pool_is_not_known(self) -> None:
        for strange in (
            "",
            "x",
            self.ids[0].replace("10.0.0.0", "10.0.9.0"),
            self.ids[0].replace("eth1", "eth0"),
        ):
            with self.assertRaises(NotFound):
                self.address(strange)

    def test_a_pool_that_is_made_later_is_one_of_its_own(self) -> None:
        request = RequestPool("MacvlanTwistedLocal", parse_network("10.0.0.0/24"), None, {"parent": "eth1"})
        later = self.plugin.wait(self.plugin.pools.request_pool(request)).pool_id
        self.plugin.wait(self.plugin.pools.release_pool(later))
        self.assertEqual(len(self.plugin.store.pools()), 1)
        self.assertNotIn(self.address(self.ids[0]), ("10.0.0.1", "10.0.0.2", "10.0.0.3"))


def _done(deferred: Any) -> Any:
    async def wait() -> None:
        await deferred

    return wait()


class TraceTests(PluginTestCase):
    def test_a_link_that_state_does_not_know_proves_it_older(self) -> None:
        self.plugin.create_network(parent="eth1.20")
        links, instance = self.plugin.kernel.links(), self.plugin.records.instance
        refuse_unknown_links(instance, links, self.plugin.registry)
        self.plugin.registry.made_links.clear()
        refuse_unknown_links("another", links, self.plugin.registry)
        with self.assertRaisesRegex(StateError, r"older than link eth1\.20"):
            refuse_unknown_links(instance, links, self.plugin.registry)

    def test_a_vlan_that_somebody_renamed_is_taken_for_one_that_nobody_needs(self) -> None:
        self.plugin.create_network(parent="eth1.20")
        vlan = self.plugin.kernel.find("eth1.20")
        assert vlan is not None
        renamed = [evolve(vlan, name="lab20")]
        for registry in ({"eth1.20"}, {"eth1.20", "lab20"}):  # as before, and as --recover finds it
            made = dict.fromkeys(registry, self.plugin.registry.made_links["eth1.20"])
            self.plugin.registry.made_links.update(made)
            with self.assert_refused(StartupError, "ip link set lab20 name eth1.20"):
                refuse_unknown_links(self.plugin.records.instance, renamed, self.plugin.registry)

    def test_a_containers_link_proves_nothing(self) -> None:
        """Its row goes before it does."""
        self.plugin.create_network(parent="eth1")
        self.plugin.create_endpoint()
        refuse_unknown_links(
            self.plugin.records.instance, self.plugin.kernel.links(), PluginHarness().registry
        )

    def test_the_instance_and_its_group_are_read_from_links(self) -> None:
        self.plugin.create_network(parent="eth1")
        self.plugin.create_endpoint()
        group = self.plugin.records.link_group
        found_instances = instances_of(self.plugin.kernel.links())
        self.assertEqual(list(found_instances), [self.plugin.records.instance])
        self.assertEqual((group - found_instances[self.plugin.records.instance]) % 32, (group - 2**16) % 32)


class WhatEnginesSayTests(PluginTestCase):
    def test_docker_20(self) -> None:
        told = found_network(
            {
                "Name": "lan",
                "Id": NETWORK,
                "Driver": DRIVER,
                "IPAM": {
                    "Driver": DRIVER,
                    "Options": None,
                    "Config": [
                        {
                            "Subnet": "192.168.77.9/24",
                            "IPRange": "192.168.77.128/25",
                            "Gateway": "192.168.77.1",
                            "AuxiliaryAddresses": {"x": "192.168.77.9"},
                        },
                        {},
                    ],
                },
                "Internal": False,
                "Containers": {
                    "c1": {
                        "Name": "ca",
                        "EndpointID": ENDPOINT,
                        "MacAddress": "7a:42:c0:a8:4d:81",
                        "IPv4Address": "192.168.77.129/24",
                        "IPv6Address": "",
                    }
                },
                "Options": {"parent": "eth1"},
            },
            {
                "c1": {
                    "State": {"Pid": 77},
                    "NetworkSettings": {
                        "SandboxKey": "/var/run/docker/netns/58991c558dcb",
                        "Networks": {
                            "lan": {"NetworkID": NETWORK, "Gateway": "192.168.77.1", "IPv6Gateway": ""}
                        },
                    },
                }
            },
        )
        self.assertEqual(
            told,
            FoundNetwork(
                NETWORK,
                "lan",
                DRIVER,
                {"parent": "eth1"},
                False,
                DRIVER,
                {},
                (
                    FoundSubnet(
                        parse_network("192.168.77.0/24"),
                        parse_network("192.168.77.128/25"),
                        parse_address("192.168.77.1"),
                        {"x": parse_address("192.168.77.9")},
                    ),
                ),
                (
                    FoundEndpoint(
                        ENDPOINT,
                        "ca",
                        "7a:42:c0:a8:4d:81",
                        parse_interface("192.168.77.129/24"),
                        None,
                        parse_address("192.168.77.1"),
                        None,
                        "/var/run/docker/netns/58991c558dcb",
                        77,
                    ),
                ),
            ),
        )

    def test_nothing_at_all(self) -> None:
        told = found_network({"Id": NETWORK, "IPAM": None, "Containers": None, "Options": None}, {})
        self.assertEqual((told.subnets, told.endpoints, told.options), ((), (), {}))

    def test_a_lease_is_rebuilt_of_address_and_mac(self) -> None:
        told = FoundNetwork(
            NETWORK,
            "lan",
            DRIVER,
            {"parent": "eth1", "dhcp": "true", "dhcp_release": "false"},
            False,
            "null",
            {},
            (FoundSubnet(parse_network("0.0.0.0/0")),),
            (FoundEndpoint(ENDPOINT, "box", "7a:42:00:00:00:01", parse_interface("192.168.1.50/24")),),
        )
        result = rebuilt(self.plugin, told)
        ((key, lease),) = result.snapshot.leases.items()
        self.assertEqual(key, "eth1 7a:42:00:00:00:01")
        self.assertEqual(str(lease.facts.interface), "192.168.1.50/24")
        self.assertTrue(lease.granted)
        self.assertFalse(lease.release)
        self.assertEqual(from_document(type(lease), to_document(lease)), lease)
