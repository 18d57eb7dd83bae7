"""Networks as an Engine 29 sees them, and the pools and addresses that they are made of."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network
from typing import Any

from attrs import define, field, frozen

from .plugin_client import BadReply, PluginClient, PluginRefused
from .rules import CallContext

Json = dict[str, Any]
AnyNetwork = IPv4Network | IPv6Network

#: A real engine sets no limit: it asks until it likes the answer or gets an error.
_MOST_OFFERS = 100

GATEWAY_TYPE = "com.docker.network.gateway"
ENDPOINT_NAME = "com.docker.network.endpoint.name"
ENDPOINT_MAC = "com.docker.network.endpoint.macaddress"


@frozen
class Subnet:
    """What the user says with --subnet, --gateway, --ip-range and --aux-address."""

    pool: str = ""
    gateway: str = ""
    ip_range: str = ""
    auxiliary: dict[str, str] = field(factory=dict)
    v6: bool = False


class AddressesExhausted(Exception):
    """The engine's own IPAM has no address left, or the requested one is in use."""


@define
class OwnPool:
    """A pool of the engine's builtin IPAM; the plugin sees it in CreateNetwork only."""

    subnet: Subnet
    network: AnyNetwork
    gateway: str | None = None
    address_space: str = "LocalDefault"
    _taken: set[str] = field(factory=set, init=False)

    @classmethod
    def open(cls, subnet: Subnet, skip_gateway: bool) -> OwnPool:
        """Without --gateway the first address becomes the gateway, unless the driver asked not to."""
        pool = cls(subnet, ip_network(subnet.pool))
        if subnet.gateway or not skip_gateway:
            pool.gateway = pool.request(subnet.gateway)
        for address in subnet.auxiliary.values():
            pool.request(address)
        return pool

    def request(self, address: str, name: str = "", mac: str = "") -> str:
        """One address in CIDR; the lowest free one unless *address* is given."""
        candidates = [address] if address else map(str, self._range().hosts())
        for candidate in candidates:
            if candidate not in self._taken:
                self._taken.add(candidate)
                return f"{candidate}/{self.network.prefixlen}"
        raise AddressesExhausted(f"no free address in {self.network}")

    def _range(self) -> AnyNetwork:
        return ip_network(self.subnet.ip_range) if self.subnet.ip_range else self.network

    def release(self, address: str) -> None:
        """Release one address, with or without prefix length."""
        self._taken.discard(str(ip_interface(address).ip))

    def close(self) -> None:
        """The plugin is not involved."""


@define
class RemotePool:
    """A pool of the plugin's IPAM."""

    plugin: PluginClient
    subnet: Subnet
    pool_id: str
    network: AnyNetwork
    address_space: str
    gateway: str | None = None

    def request(self, address: str, name: str = "", mac: str = "") -> str:
        """One address in CIDR for the endpoint of container *name*."""
        options = {ENDPOINT_MAC: mac, ENDPOINT_NAME: name} if mac else {ENDPOINT_NAME: name}
        return self._request(address, options)

    def _request(self, address: str, options: Json | None) -> str:
        body = {"PoolID": self.pool_id, "Address": address, "Options": options}
        context = CallContext(pool=str(self.network))
        return str(self.plugin.call("IpamDriver.RequestAddress", body, context)["Address"])

    def request_gateway(self, named_with_pool: str | None, skip: bool) -> None:
        """An explicit --gateway is always requested; otherwise the plugin may have named one already."""
        self.gateway = named_with_pool
        if self.subnet.gateway or (named_with_pool is None and not skip):
            self.gateway = self._request(self.subnet.gateway, {"RequestAddressType": GATEWAY_TYPE})

    def request_auxiliary(self) -> None:
        """One call each for --aux-address."""
        for address in self.subnet.auxiliary.values():
            self._request(address, None)

    def release(self, address: str) -> None:
        """Release one address; the engine sends it without prefix length and ignores errors."""
        bare = str(ip_interface(address).ip)
        self.plugin.attempt("IpamDriver.ReleaseAddress", {"PoolID": self.pool_id, "Address": bare})

    def close(self) -> None:
        """Release the pool, even with addresses in use."""
        self.plugin.attempt("IpamDriver.ReleasePool", {"PoolID": self.pool_id})


Pool = OwnPool | RemotePool


@define
class Network:
    """A network that the plugin has acknowledged."""

    network_id: str
    name: str
    pools: list[Pool]
    internal: bool = False

    def pool(self, v6: bool) -> Pool | None:
        """The pool that an endpoint without --ip gets its address from: the first of its family."""
        version = 6 if v6 else 4
        return next((pool for pool in self.pools if pool.network.version == version), None)

    def pool_with(self, address: str) -> Pool:
        """The pool that --ip lies in."""
        return next(pool for pool in self.pools if ip_interface(address).ip in pool.network)


def data_of(pools: list[Pool], version: int) -> list[Json]:
    """IPv4Data or IPv6Data of CreateNetwork."""
    return [_data(pool) for pool in pools if pool.network.version == version]


def _data(pool: Pool) -> Json:
    data: Json = {"AddressSpace": pool.address_space}
    if pool.subnet.pool:
        prefix = pool.network.prefixlen
        data["AuxAddresses"] = {k: f"{v}/{prefix}" for k, v in pool.subnet.auxiliary.items()}
    if pool.gateway is not None:
        data["Gateway"] = pool.gateway
    return {**data, "Pool": str(pool.network)}


def release_all(pools: list[Pool]) -> None:
    """``network rm``: IPAM first, v4 before v6, gateway and auxiliary addresses before their pool."""
    for pool in sorted(pools, key=lambda each: each.network.version):
        if pool.gateway is not None:
            pool.release(pool.gateway)
        for address in pool.subnet.auxiliary.values():
            pool.release(address)
        pool.close()


@define
class PoolRequests:
    """The plugin's IPAM while a network is being created."""

    plugin: PluginClient
    options: dict[str, str]
    in_use: list[AnyNetwork]
    #: The answer of GwAllocCheck.
    skip_gateway: Json

    def open_all(self, subnets: list[Subnet]) -> list[Pool]:
        """Ask for all pools, v4 first.

        :raises PluginRefused: what had been granted is given back, as incompletely as engines do it: within a
            family only ReleasePool, the other family completely.
        """
        self.plugin.call("IpamDriver.GetDefaultAddressSpaces")
        pools: list[Pool] = []
        for v6 in (False, True):
            family: list[Pool] = []
            try:
                for subnet in subnets:
                    if subnet.v6 == v6:
                        self._open(subnet, family)
            except PluginRefused:
                for pool in family:
                    pool.close()
                release_all(pools)
                raise
            pools += family
        return pools

    def _open(self, subnet: Subnet, family: list[Pool]) -> None:
        spaces = self.plugin.call("IpamDriver.GetDefaultAddressSpaces")
        space = str(spaces["LocalDefaultAddressSpace"])
        rejected: list[str] = []
        for reply in self._offers(space, subnet):
            network = ip_network(reply["Pool"])
            if (
                subnet.pool
                or not network.prefixlen
                or not any(network.overlaps(each) for each in self._others(network, family))
            ):
                break
            rejected.append(reply["PoolID"])
        skip = bool(self.skip_gateway["SkipIPv6" if subnet.v6 else "SkipIPv4"])
        pool = RemotePool(self.plugin, subnet, reply["PoolID"], network, space)
        family.append(pool)
        for pool_id in rejected:
            self.plugin.attempt("IpamDriver.ReleasePool", {"PoolID": pool_id})
        pool.request_gateway((reply.get("Data") or {}).get(GATEWAY_TYPE), skip)
        pool.request_auxiliary()

    def _offers(self, space: str, subnet: Subnet) -> Iterator[Json]:
        """Without --subnet the engine refuses what overlaps its other networks, and asks again."""
        body = {
            "AddressSpace": space,
            "Pool": subnet.pool,
            "SubPool": subnet.ip_range,
            "Options": self.options,
            "V6": subnet.v6,
        }
        for _ in range(_MOST_OFFERS):
            yield self.plugin.call("IpamDriver.RequestPool", body)
        raise BadReply("RequestPool: only pools that overlap networks in use; an engine would ask for ever")

    def _others(self, network: AnyNetwork, family: list[Pool]) -> list[Any]:
        networks = [*self.in_use, *(pool.network for pool in family)]
        return [each for each in networks if each.version == network.version]
