"""What the service was asked to create and not asked to remove.

At the end of a conversation nothing else may be left. An engine does forget things: it drops endpoints of
containers that were removed while the plugin was down, and never asks for their removal.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field, frozen

from .recording import Call

Json = dict[str, Any]


@frozen
class Leftovers:
    """The contents of the state, and our links in the kernel, when the service is stopped."""

    networks: frozenset[str] = frozenset()
    endpoints: frozenset[str] = frozenset()
    pools: frozenset[str] = frozenset()
    #: Pairs of pool id and address.
    addresses: frozenset[tuple[str, str]] = frozenset()
    links: frozenset[str] = frozenset()
    #: Our own links on parents: one on each that a network or a pool is on.
    host_links: frozenset[str] = frozenset()


@define
class Ledger:
    """The networks, endpoints and pools that the service has acknowledged."""

    networks: dict[str, Call] = field(factory=dict, init=False)
    #: Endpoint id to network id.
    endpoints: dict[str, str] = field(factory=dict, init=False)
    #: Our pool ids; the same one may be granted twice and is gone with the first release.
    pools: set[str] = field(factory=set, init=False)
    joined_links: dict[str, str] = field(factory=dict, init=False)
    _internal: set[str] = field(factory=set, init=False)
    _addresses_of_endpoint: dict[str, tuple[str, ...]] = field(factory=dict, init=False)

    def note_success(self, call: Call, sent: Json, reply: Json) -> None:
        """A call was answered with success; *sent* is the body as our service saw it."""
        match call.method.partition(".")[2]:
            case "CreateNetwork":
                self.networks[sent["NetworkID"]] = call
                if (sent.get("Options") or {}).get("com.docker.network.internal"):
                    self._internal.add(sent["NetworkID"])
            case "DeleteNetwork":
                self.networks.pop(sent["NetworkID"], None)
                for endpoint in [e for e, network in self.endpoints.items() if network == sent["NetworkID"]]:
                    del self.endpoints[endpoint]
            case "CreateEndpoint":
                self.note_endpoint(sent)
            case "DeleteEndpoint":
                self.endpoints.pop(sent["EndpointID"], None)
            case "Join":
                self.joined_links[sent["EndpointID"]] = reply["InterfaceName"]["SrcName"]
            case "RequestPool":
                self.pools.add(reply["PoolID"])
            case "ReleasePool":
                self.pools.discard(sent["PoolID"])

    def note_endpoint(self, sent: Json) -> None:
        """An endpoint was requested, and may exist even if the reply got lost."""
        interface = sent["Interface"]
        self.endpoints[sent["EndpointID"]] = sent["NetworkID"]
        self._addresses_of_endpoint[sent["EndpointID"]] = tuple(
            interface[name] for name in ("Address", "AddressIPv6") if interface.get(name)
        )

    def addresses_of(self, endpoint: str) -> tuple[str, ...]:
        """The endpoint's own addresses, in CIDR."""
        return self._addresses_of_endpoint.get(endpoint, ())

    def is_internal(self, network: str) -> bool:
        """True for networks that were created with --internal."""
        return network in self._internal

    def complaints_about(self, left: Leftovers, link_of_endpoint: dict[str, str]) -> list[str]:
        """Return what should not be left, and what is lost."""
        complaints = [
            f"{what} {each} is left"
            for what, found, allowed in (
                ("network", left.networks, self.networks.keys()),
                ("endpoint", left.endpoints, self.endpoints.keys()),
                ("pool", left.pools, self.pools),
                ("link", left.links, {link_of_endpoint[endpoint] for endpoint in self.endpoints}),
                ("host link", left.host_links, left.host_links if self.networks or self.pools else ()),
            )
            for each in sorted(found - set(allowed))
        ]
        complaints += [
            f"address {address} of pool {pool} is left"
            for pool, address in sorted(left.addresses)
            if pool not in self.pools
        ]
        complaints += [
            f"network {network} is lost, although the engine has it"
            for network, call in self.networks.items()
            if call.fault is None and network not in left.networks
        ]
        return complaints
