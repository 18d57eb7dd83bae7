"""Have a revision write a state: ``python -m tests.states.make REVISION NAME``, as root (see README.rst)."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.lab.commands import run
from tests.lab.dhcp_server import DhcpServer
from tests.lab.lan import Lan
from tests.lab.plugin import CHECKOUT, DEFAULTS, Plugin
from tests.states import HERE, dump

OURS, SWARMS, DOCKERS, NOBODYS = "MacvlanTwistedLocal", "MacvlanTwistedGlobal", "LocalDefault", "null"
"""Address spaces: of our address management, of Docker's, and of the null one."""
FOR_EVER = 2**32 - 1
"""Seconds of a lease without end (RFC 2131, 3.3)."""


class OldPlugin(Plugin):
    """The service of a revision, without options that it did not have."""

    def _words(self) -> tuple[str, ...]:
        words = super()._words()
        at = words.index("--runtime-dir")
        assert self._pythonpath is not None
        source = "".join(path.read_text() for path in (self._pythonpath / "macvlan_twisted").rglob("*.py"))
        return words if "runtime-dir" in source or "runtime_dir" in source else words[:at] + words[at + 2 :]


class Maker:
    """An engine's calls for networks of all kinds. What a revision does not know it refuses, and it is left out."""

    def __init__(self, plugin: Plugin) -> None:
        """Remember whom to call."""
        self._plugin = plugin
        self.networks: list[dict[str, Any]] = []
        self.endpoints: list[dict[str, Any]] = []
        self._ids = 0

    def call(self, method: str, **body: Any) -> dict[str, Any]:
        """Make a call that succeeds."""
        answer = self._plugin.call(method, body)
        if answer.get("Err"):
            raise LookupError(f"{method}: {answer['Err']}")
        return answer

    def pool(self, pool: str, part: str = "", space: str = OURS, **options: str) -> str:
        """Open a pool."""
        v6 = ":" in pool
        asked = {"AddressSpace": space, "Pool": pool, "SubPool": part, "Options": options, "V6": v6}
        return str(self.call("IpamDriver.RequestPool", **asked)["PoolID"])

    def address(self, pool: str, address: str = "", **options: str) -> str:
        """Allocate an address."""
        named = {key.replace("_", "."): value for key, value in options.items()}
        answer = self.call("IpamDriver.RequestAddress", PoolID=pool, Address=address, Options=named)
        return str(answer["Address"])

    def network(
        self, subnets: list[dict[str, Any]], pool: str = "", address: str = "", **options: str
    ) -> str:
        """Create a network. `pool` is that of its containers, or `address` one that somebody else gives them."""
        network = f"{len(self.networks) + 1:x}" * 64
        body = {"NetworkID": network, "Options": {"com.docker.network.generic": options}}
        families: dict[str, list[dict[str, Any]]] = {"IPv4Data": [], "IPv6Data": []}
        for subnet in subnets:
            families["IPv6Data" if ":" in subnet["Pool"] else "IPv4Data"].append(subnet)
        self.call("NetworkDriver.CreateNetwork", **body, **families)
        self.networks.append({"id": network, "pool": pool, "address": address})
        return network

    def endpoint(self, network: str, address: str, pool: str = "", mac: str = "", joins: bool = True) -> str:
        """Create an endpoint."""
        self._ids += 1
        endpoint = f"{self._ids:02x}" * 32
        about = {"NetworkID": network, "EndpointID": endpoint}
        family = "AddressIPv6" if ":" in address else "Address"
        self.call(
            "NetworkDriver.CreateEndpoint",
            **about,
            Interface={family: address, "MacAddress": mac},
            Options={},
        )
        if joins:
            sandbox = f"/var/run/docker/netns/{self._ids:012x}"
            self.call("NetworkDriver.Join", **about, SandboxKey=sandbox, Options={})
        self.endpoints.append({"network": network, "id": endpoint, "pool": pool, "address": address})
        return endpoint

    def make_all(self) -> Iterator[str]:
        """Make each kind of network; yields what the revision does not know."""
        for make in (self.ours, self.dual, self.dockers, self.nobodys, self.hosts, self.dhcps, self.swarms):
            try:
                make()
            except LookupError as refused:
                yield f"{make.__name__}: {refused}"

    def ours(self) -> None:
        """Two networks on one subnet, with a gateway, auxiliary addresses, and containers that came and went."""
        for part in ("192.168.77.64/26", "192.168.77.128/26"):
            pool = self.pool("192.168.77.0/24", part)
            gateway = self.address(pool, "192.168.77.1", RequestAddressType="com.docker.network.gateway")
            reserved = part.partition("/")[0][:-1] + "9"
            self.address(pool, reserved)
            subnet = {"AddressSpace": OURS, "Pool": "192.168.77.0/24", "Gateway": gateway}
            network = self.network(
                [{**subnet, "AuxAddresses": {"nas": f"{reserved}/24"}}], pool, parent="eth1"
            )
            for number in range(3):
                name = {"com_docker_network_endpoint_name": f"box{number}"}
                address = self.address(pool, **name)
                self.endpoint(network, address, pool, joins=number != 1)
            self.endpoint(
                network, self.address(pool, part.partition("/")[0][:-2] + "90"), pool, "02:00:00:00:07:07"
            )
            gone = self.endpoints.pop()
            about = {"NetworkID": network, "EndpointID": gone["id"]}
            self.call("NetworkDriver.Leave", **about)
            self.call("NetworkDriver.DeleteEndpoint", **about)
            self.call("IpamDriver.ReleaseAddress", PoolID=pool, Address=gone["address"].partition("/")[0])

    def dual(self) -> None:
        """Our addresses of both families, on a parent that the user names for the pool, too."""
        pools = [self.pool(each, parent="eth2") for each in ("10.30.0.0/24", "fd30::/64")]
        subnets = [
            {"AddressSpace": OURS, "Pool": "10.30.0.0/24", "Gateway": "10.30.0.1/24"},
            {"AddressSpace": OURS, "Pool": "fd30::/64"},
        ]
        self.address(pools[0], "10.30.0.1", RequestAddressType="com.docker.network.gateway")
        network = self.network(subnets, pools[0], parent="eth2")
        self.endpoint(network, self.address(pools[0]), pools[0])
        self.endpoint(network, self.address(pools[1]), pools[1])

    def dockers(self) -> None:
        """Addresses of Docker's own management, on a subnet of ours, too, but for a part."""
        subnet = {"AddressSpace": DOCKERS, "Pool": "10.40.0.0/24", "Gateway": "10.40.0.1/24"}
        network = self.network([subnet], address="10.40.0.9/24", parent="eth1", macvlan_mode="private")
        self.endpoint(network, "10.40.0.2/24")

    def nobodys(self) -> None:
        """No addresses."""
        self.endpoint(self.network([{"AddressSpace": NOBODYS, "Pool": "0.0.0.0/0"}], parent="eth1"), "")

    def hosts(self) -> None:
        """Host access."""
        pool = self.pool("10.60.0.0/24")
        gateway = self.address(pool, "10.60.0.1", RequestAddressType="com.docker.network.gateway")
        subnet = {"AddressSpace": OURS, "Pool": "10.60.0.0/24", "Gateway": gateway}
        network = self.network([subnet], pool, parent="eth1", host_access="true")
        self.endpoint(network, self.address(pool), pool)

    def dhcps(self) -> None:
        """Addresses from the DHCP server, by our management and without one."""
        pool = self.pool("192.168.78.0/24", dhcp="true", parent="eth2")
        subnet = {"AddressSpace": OURS, "Pool": "192.168.78.0/24"}
        network = self.network([subnet], pool, parent="eth2")
        self.endpoint(network, self.address(pool), pool)
        self.endpoint(
            self.network([{"AddressSpace": NOBODYS, "Pool": "0.0.0.0/0"}], parent="eth2", dhcp="true"), ""
        )

    def swarms(self) -> None:
        """A swarm manager's pool, of whose network only the nodes hear."""
        self.address(self.pool("10.50.0.0/24", space=SWARMS))


@contextmanager
def revision(name: str) -> Iterator[Path]:
    """Check a revision out, beside us."""
    with tempfile.TemporaryDirectory(prefix="mt-revision-") as place:
        git = ("git", "-C", str(CHECKOUT), "worktree")
        subprocess.run((*git, "add", "--quiet", "--detach", f"{place}/source", name), check=True)
        try:
            yield Path(place, "source")
        finally:
            subprocess.run((*git, "remove", "--force", f"{place}/source"), check=True)


def main(named: str, name: str) -> None:
    """Write the files of one state."""
    commit = run("git", "-C", str(CHECKOUT), "rev-parse", "--short", named).strip()
    with ExitStack() as undo:
        source = undo.enter_context(revision(commit))
        lan = undo.enter_context(Lan(nics=2))
        lan.run_in("gateway", "ip", "address", "add", "192.168.78.1/24", "dev", "eth1")
        undo.enter_context(DhcpServer(lan, range="192.168.78.100,192.168.78.199", lease_seconds=FOR_EVER))
        plugin = undo.enter_context(OldPlugin(lan, pythonpath=source, arguments=DEFAULTS))
        maker = Maker(plugin)
        for unknown in maker.make_all():
            print(f"{name}: left out {unknown}")
        contents = {
            "revision": commit,
            "networks": maker.networks,
            "endpoints": maker.endpoints,
            "links": [_described(link) for name, link in lan.host_links().items() if name.startswith("mv")],
        }
        plugin.stop()
        target = HERE / name
        target.mkdir(exist_ok=True)
        (target / "state.sql").write_text(dump(plugin.state_dir), encoding="utf-8")
        (target / "generation.hex").write_text((plugin.state_dir / "generation").read_bytes().hex() + "\n")
        (target / "contents.json").write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")


def _described(link: Mapping[str, Any]) -> dict[str, Any]:
    """What `ip link add` needs to make the link again."""
    return {
        "name": link["ifname"],
        "parent": link["link"],
        "mac": link["address"],
        "group": link["group"],
        "alias": link.get("ifalias", ""),
        "mode": link["linkinfo"]["info_data"]["mode"],
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
