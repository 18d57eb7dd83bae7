"""States that earlier revisions wrote, used by the service of today: their containers live on, and new ones start."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.dhcp_server import DhcpServer
from tests.lab.lan import Lan
from tests.lab.plugin import DEFAULTS, Plugin
from tests.lab.state_copy import copied
from tests.states import NAMES, contents, restore

Named = dict[str, Any]
PLACES = ("networks", "endpoints", "pools", "addresses", "made_links", "host_links", "leases")


@pytest.fixture(scope="module")
def old_lan() -> Iterator[Lan]:
    """Give a LAN like the one that the states were made on."""
    with Lan(nics=2) as lan:
        lan.run_in("gateway", "ip", "address", "add", "192.168.78.1/24", "dev", "eth1")
        with DhcpServer(lan, range="192.168.78.100,192.168.78.199"):
            yield lan


class OldContainers:
    """An engine's calls for the networks and containers in a state that an earlier revision wrote."""

    def __init__(self, lan: Lan, plugin: Plugin, name: str) -> None:
        """Remember whom to call."""
        found = contents(name)
        self._lan = lan
        self._plugin = plugin
        self.networks: list[Named] = found["networks"]
        self.endpoints: list[Named] = found["endpoints"]
        self._links: list[Named] = found["links"]
        self._ids = 0

    def make_links(self) -> None:
        """Make what the kernel has when the program is replaced while containers run."""
        for link in self._links:
            about = ("name", link["name"], "address", link["mac"], "group", link["group"])
            kind = ("type", "macvlan", "mode", link["mode"])
            self._ip("link", "add", "link", link["parent"], *about, *kind)
            self._ip("link", "set", link["name"], "alias", link["alias"])

    def _ip(self, *words: str) -> None:
        self._lan.run_in("host", "ip", *words)

    def call(self, method: str, **body: Any) -> Named:
        """Make a call that succeeds."""
        answer = self._plugin.call(method, body)
        assert "Err" not in answer, f"{method} {body}: {answer['Err']}"
        return answer

    def join(self, endpoint: Named) -> None:
        """Start the endpoint's container."""
        sandbox = f"/var/run/docker/netns/{endpoint['id'][-12:]}"
        self.call("NetworkDriver.Join", **self._about(endpoint), SandboxKey=sandbox, Options={})

    def start(self, network: Named) -> Named:
        """Start a new container on a network."""
        self._ids += 1
        address = network["address"]
        if network["pool"]:
            address = self.call("IpamDriver.RequestAddress", PoolID=network["pool"], Address="")["Address"]
        endpoint = {
            "network": network["id"],
            "id": f"ff{self._ids:062x}",
            "pool": network["pool"],
            "address": address,
        }
        interface = {"Address": address, "AddressIPv6": "", "MacAddress": ""}
        self.call("NetworkDriver.CreateEndpoint", **self._about(endpoint), Interface=interface, Options={})
        self.join(endpoint)
        return endpoint

    def stop(self, endpoint: Named) -> None:
        """Stop a container, and remove it."""
        for method in ("Leave", "DeleteEndpoint"):
            self.call(f"NetworkDriver.{method}", **self._about(endpoint))
        if endpoint["pool"]:
            address = endpoint["address"].partition("/")[0]
            self.call("IpamDriver.ReleaseAddress", PoolID=endpoint["pool"], Address=address)

    def remove_networks(self) -> None:
        """Remove all networks, and all pools."""
        with copied(self._plugin.state_dir) as database:
            assert database is not None
            pools = [row[0] for row in database.execute("SELECT id FROM pools")]
        for network in self.networks:
            self.call("NetworkDriver.DeleteNetwork", NetworkID=network["id"])
        for pool in pools:
            self.call("IpamDriver.ReleasePool", PoolID=pool)

    @staticmethod
    def _about(endpoint: Named) -> Named:
        return {"NetworkID": endpoint["network"], "EndpointID": endpoint["id"]}


@pytest.mark.parametrize("name", NAMES)
def test_containers_live_on_and_start_after_an_upgrade(old_lan: Lan, name: str) -> None:
    with Plugin(old_lan, arguments=(*DEFAULTS, "--probe-timeout", "0.1")) as plugin:
        plugin.stop()
        shutil.rmtree(plugin.state_dir)
        shutil.rmtree(plugin.directory / "run")
        restore(name, plugin.state_dir)
        old = OldContainers(old_lan, plugin, name)
        old.make_links()

        plugin.start()  # the upgrade
        before = old.endpoints
        assert f"(networks: {len(old.networks)}, endpoints: {len(before)})" in plugin.log()
        old.join(before[0])  # restarted by an engine that had it, and then stopped
        old.stop(before[0])
        new = [old.start(network) for network in old.networks]
        for endpoint in new[1:]:
            old.stop(endpoint)

        plugin.stop()
        plugin.start()  # with the state that was upgraded
        old.join(new[0])
        for endpoint in [*before[1:], new[0]]:
            old.stop(endpoint)
        for endpoint in [old.start(network) for network in old.networks]:
            old.stop(endpoint)
        old.remove_networks()
        plugin.stop()
        with copied(plugin.state_dir) as database:
            assert database is not None
            left = {
                table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in PLACES
            }
        assert left == dict.fromkeys(PLACES, 0)
        assert not [link for link in old_lan.host_links() if link.startswith("mv")]
        assert "Traceback" not in plugin.log()
