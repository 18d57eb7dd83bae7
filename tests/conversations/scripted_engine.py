"""A small model of Docker Engine 29, as a network and IPAM plugin sees it.

It makes the calls that a real one was recorded to make, in the same order, and obeys what it does with the
replies: it refuses those that a real engine refuses (:class:`BadReply`), and rolls back in the same way. It
has no containers, only their endpoints; links are moved by whoever plays the kernel.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
from typing import Any

from attrs import define, field

from .engine_containers import Container, Endpoint, Failure, StartFailed
from .engine_networks import AnyNetwork, Network, OwnPool, Pool, PoolRequests, Subnet, data_of, release_all
from .plugin_client import BadReply, PluginClient, PluginRefused
from .replay import Sandboxes
from .rules import CallContext

__all__ = [
    "BadReply",
    "Container",
    "Endpoint",
    "Engine29",
    "Failure",
    "Network",
    "PluginRefused",
    "StartFailed",
    "Subnet",
]

Json = dict[str, Any]

_PORTS: Json = {"com.docker.network.endpoint.exposedports": [], "com.docker.network.portmap": []}


@define
class Engine29:
    """One dockerd with its plugin on a UNIX socket."""

    socket_path: str
    sandboxes: Sandboxes
    seed: int = 29
    #: Subnets that the host has routes to: no pool without --subnet may overlap them.
    host_routes: list[AnyNetwork] = field(factory=list)
    sleep: Callable[[float], None] | None = None
    networks: dict[str, Network] = field(factory=dict, init=False)
    containers: dict[str, Container] = field(factory=dict, init=False)
    plugin: PluginClient = field(init=False)
    _random: random.Random = field(init=False)
    _capabilities: Json | None = field(default=None, init=False)
    _ipam_capabilities: Json = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.plugin = PluginClient(self.socket_path, *([self.sleep] if self.sleep else []))
        self._random = random.Random(self.seed)

    def _hex(self, digits: int) -> str:
        return f"{self._random.getrandbits(digits * 4):0{digits}x}"

    def _activated(self) -> Json:
        """Once in a dockerd's life, when the plugin is first needed."""
        if self._capabilities is None:
            self.plugin.call("Plugin.Activate")
            self._capabilities = self.plugin.call("NetworkDriver.GetCapabilities")
            self._ipam_capabilities = self.plugin.call("IpamDriver.GetCapabilities")
        return self._capabilities

    # Networks

    def network_create(
        self,
        name: str,
        *subnets: Subnet,
        options: dict[str, str] | None = None,
        remote_ipam: bool = False,
        ipam_options: dict[str, str] | None = None,
        internal: bool = False,
    ) -> Network:
        """``docker network create``.

        :raises PluginRefused: with everything given back that IPAM had granted.
        """
        capabilities = self._activated()
        flags: Json = {
            "com.docker.network.enable_ipv4": any(not subnet.v6 for subnet in subnets) or not subnets,
            "com.docker.network.enable_ipv6": any(subnet.v6 for subnet in subnets),
            "com.docker.network.generic": dict(options or {}),
        }
        if internal:
            flags["com.docker.network.internal"] = True
        skip = {"SkipIPv4": False, "SkipIPv6": False}
        if capabilities.get("GwAllocChecker"):
            skip = self.plugin.call("NetworkDriver.GwAllocCheck", {"Options": flags})
        asked = list(subnets) or [Subnet()]
        pools: list[Pool]
        if remote_ipam:
            in_use = [pool.network for network in self.networks.values() for pool in network.pools]
            in_use += self.host_routes
            requests = PoolRequests(self.plugin, ipam_options or {}, in_use, skip)
            pools = requests.open_all(asked)
        else:
            pools = [OwnPool.open(each, skip["SkipIPv6" if each.v6 else "SkipIPv4"]) for each in asked]
        network = Network(self._hex(64), name, pools, internal)
        body = {
            "NetworkID": network.network_id,
            "Options": flags,
            "IPv4Data": data_of(pools, 4),
            "IPv6Data": data_of(pools, 6),
        }
        try:
            self.plugin.call("NetworkDriver.CreateNetwork", body)
        except PluginRefused:
            release_all(pools)  # and no DeleteNetwork
            raise
        self.networks[name] = network
        return network

    def network_rm(self, network: Network) -> None:
        """``docker network rm``: IPAM first, then the driver; errors are ignored."""
        release_all(network.pools)
        self.plugin.attempt("NetworkDriver.DeleteNetwork", {"NetworkID": network.network_id})
        del self.networks[network.name]

    # Containers

    def run(
        self, name: str, *networks: Network, ip: str = "", mac: str = "", pretend: Failure | None = None
    ) -> Container:
        """``docker run -d``; --ip and --mac-address are for the first network.

        :raises StartFailed: after the rollback.
        """
        container = Container(name, f"/var/run/docker/netns/{self._hex(12)}")
        for index, network in enumerate(networks):
            try:
                words = {"ip": ip, "mac": mac} if index == 0 else {}
                self.connect(container, network, **words, pretend=pretend)
            except (StartFailed, PluginRefused) as error:
                self.stop(container)
                raise StartFailed(str(error)) from error
        self.containers[name] = container
        return container

    def connect(
        self,
        container: Container,
        network: Network,
        *,
        ip: str = "",
        mac: str = "",
        pretend: Failure | None = None,
    ) -> Endpoint:
        """``docker network connect``, and what ``run`` does for each network.

        :raises PluginRefused: no endpoint was made.
        :raises StartFailed: the endpoint was made and has been rolled back.
        """
        for other in container.sorted_endpoints():
            self.plugin.attempt("NetworkDriver.EndpointOperInfo", other.about)
        endpoint = Endpoint(self._hex(64), network)
        if mac:
            endpoint.mac = mac
        elif self._ipam_capabilities.get("RequiresMACAddress"):
            endpoint.mac = f"02:{':'.join(self._hex(2) for _ in range(5))}"
        self._request_addresses(container, endpoint, ip)
        self._create_endpoint(endpoint, mac, pretend)
        self._join(container, endpoint, pretend)
        container.endpoints.append(endpoint)
        self._move_default_gateway(container, endpoint, pretend)
        for each in container.sorted_endpoints():
            self.plugin.attempt("NetworkDriver.EndpointOperInfo", each.about)
        return endpoint

    def _request_addresses(self, container: Container, endpoint: Endpoint, ip: str) -> None:
        """v4, then v6. When v6 fails the v4 address is not released: no engine does it."""
        for v6 in (False, True):
            pool = endpoint.network.pool_with(ip) if ip and not v6 else endpoint.network.pool(v6)
            if pool is not None:
                address = pool.request("" if v6 else ip, container.name, endpoint.mac)
                endpoint.addresses.append((pool, address))

    def _release_addresses(self, endpoint: Endpoint) -> None:
        for pool, address in endpoint.addresses:
            pool.release(address)

    def _create_endpoint(self, endpoint: Endpoint, user_mac: str, pretend: Failure | None) -> None:
        v4 = next((text for pool, text in endpoint.addresses if pool.network.version == 4), "")
        v6 = next((text for pool, text in endpoint.addresses if pool.network.version == 6), "")
        options = dict(_PORTS)
        if user_mac:
            packed = bytes.fromhex(user_mac.replace(":", ""))
            options["com.docker.network.endpoint.macaddress"] = base64.b64encode(packed).decode()
        interface = {"Address": v4, "AddressIPv6": v6, "MacAddress": endpoint.mac}
        body = {**endpoint.about, "Interface": interface, "Options": options}
        try:
            reply = self.plugin.call("NetworkDriver.CreateEndpoint", body)
            if pretend is Failure.CREATE_ENDPOINT_REPLY_UNUSABLE:
                raise BadReply("pretended")
        except PluginRefused:
            self._release_addresses(endpoint)  # and no DeleteEndpoint
            raise
        except BadReply as bad:
            self._delete_endpoint(endpoint)
            raise self._failed(bad, pretend) from bad
        endpoint.mac = (reply.get("Interface") or {}).get("MacAddress") or endpoint.mac

    def _join(self, container: Container, endpoint: Endpoint, pretend: Failure | None) -> None:
        body = {**endpoint.about, "SandboxKey": container.sandbox_key, "Options": _PORTS}
        addresses = tuple(text for _, text in endpoint.addresses)
        context = CallContext(addresses=addresses, internal=endpoint.network.internal)
        try:
            reply = self.plugin.call("NetworkDriver.Join", body, context)
            if pretend is Failure.JOIN:
                raise PluginRefused("pretended")
            if pretend is Failure.JOIN_REPLY_UNUSABLE:
                raise BadReply("pretended")
        except PluginRefused as refused:
            self._leave(endpoint)
            self._delete_endpoint(endpoint)
            raise StartFailed(str(refused)) from refused
        except BadReply as bad:
            self._leave_twice_and_delete(endpoint)
            raise self._failed(bad, pretend) from bad
        endpoint.link = reply["InterfaceName"]["SrcName"]
        endpoint.gateway = reply.get("Gateway") or ""
        endpoint.gateway_v6 = reply.get("GatewayIPv6") or ""
        endpoint.has_link = self.sandboxes.take(endpoint.link)
        if not endpoint.has_link or pretend is Failure.MOVING_THE_LINK:
            missing = BadReply(f'failed to get link by name "{endpoint.link}": Link not found')
            self._leave_twice_and_delete(endpoint)
            raise self._failed(missing, pretend)

    @staticmethod
    def _failed(bad: BadReply, pretend: Failure | None) -> Exception:
        """Return the error: a really bad reply is the plugin's fault, and more than a failed start."""
        return bad if pretend is None else StartFailed(f"pretended: {pretend.name}")

    def _move_default_gateway(self, container: Container, new: Endpoint, pretend: Failure | None) -> None:
        best = container.sorted_endpoints()[0]
        if best is not new or not new.can_be_default_gateway:
            return
        if container.programmed is not None:
            self.plugin.attempt("NetworkDriver.RevokeExternalConnectivity", container.programmed.about)
        try:
            self.plugin.call("NetworkDriver.ProgramExternalConnectivity", {**new.about, "Options": _PORTS})
            if pretend is Failure.PROGRAM_EXTERNAL_CONNECTIVITY:
                raise PluginRefused("pretended")
        except PluginRefused as refused:
            container.endpoints.remove(new)
            self._leave_twice_and_delete(new)
            raise StartFailed(str(refused)) from refused
        container.programmed = new

    def stop(self, container: Container) -> None:
        """The container stopped, exited, was killed or is removed: always the same calls."""
        for endpoint in container.sorted_endpoints():
            self._revoke(container, endpoint)
            self._leave(endpoint)
            self._delete_endpoint(endpoint)
        container.endpoints.clear()
        self.containers.pop(container.name, None)

    def _revoke(self, container: Container, endpoint: Endpoint) -> None:
        if container.programmed is endpoint:
            self.plugin.attempt("NetworkDriver.RevokeExternalConnectivity", endpoint.about)
            container.programmed = None

    def _leave(self, endpoint: Endpoint) -> None:
        self.plugin.attempt("NetworkDriver.Leave", endpoint.about)
        if endpoint.has_link:
            self.sandboxes.give_back(endpoint.link)
            endpoint.has_link = False

    def _leave_twice_and_delete(self, endpoint: Endpoint) -> None:
        """The rollback of Engine 29 after a successful Join."""
        self.plugin.attempt("NetworkDriver.Leave", endpoint.about)
        self._leave(endpoint)
        self._delete_endpoint(endpoint)

    def _delete_endpoint(self, endpoint: Endpoint) -> None:
        self.plugin.attempt("NetworkDriver.DeleteEndpoint", endpoint.about)
        self._release_addresses(endpoint)

    # dockerd's own life

    def lose_containers(self) -> None:
        """kill -9, and a start with the plugin absent: stale endpoints are dropped silently."""
        self._forget_the_plugin()
        for container in self.containers.values():
            for endpoint in container.endpoints:
                self.sandboxes.destroy(endpoint.link)
        self.containers.clear()

    def rm_unanswered(self, container: Container) -> None:
        """``docker rm -f`` with the plugin absent: the link comes back, and the engine forgets what nobody answered."""
        self.plugin.close()
        for endpoint in container.endpoints:
            self.sandboxes.give_back(endpoint.link)
        del self.containers[container.name]

    def rename(self, container: Container, name: str) -> None:
        """``docker rename``, of which no plugin is told."""
        del self.containers[container.name]
        container.name = name
        self.containers[name] = container

    def _forget_the_plugin(self) -> None:
        self.plugin.close()
        self._capabilities = None

    def close(self) -> None:
        """Hang up."""
        self.plugin.close()
