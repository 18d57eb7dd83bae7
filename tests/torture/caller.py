"""An engine's side of endpoint lives: what it calls, how it tries again, rolls back, and forgets."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from ipaddress import ip_network
from random import Random
from typing import Any

from attrs import define, field

from macvlan_twisted.protocol.messages import LOCAL_ADDRESS_SPACE
from tests.conversations.plugin_client import BadReply, PluginClient, PluginRefused
from tests.conversations.wire import NoReply
from tests.lab.commands import attempt
from tests.lab.plugin import Plugin
from tests.torture.part import Tally

GATEWAY_TYPE = {"RequestAddressType": "com.docker.network.gateway"}
DIAL_WAIT_FACTOR = 0.3
"""Engines wait 1, 2, 4 and 8 seconds before they dial again; these callers multiply that by this factor."""
CUT_OFF = "empty body"
"""Part of the error for a repeated call that lost its body."""


@define
class Net:
    """One network."""

    number: int
    parent: str
    subnet: str
    options: Mapping[str, str]
    is_ours: bool
    pool: str = ""

    @property
    def network_id(self) -> str:
        """The engine's id of it."""
        return f"{self.number:064x}"

    @property
    def gateway(self) -> str:
        """The first address."""
        return str(ip_network(self.subnet)[1])

    @property
    def length(self) -> int:
        """The prefix length."""
        return ip_network(self.subnet).prefixlen

    def open(self, plugin: Plugin) -> None:
        """Create it, as `docker network create` does."""
        space = LOCAL_ADDRESS_SPACE if self.is_ours else "LocalDefault"
        if self.is_ours:
            asked = {"AddressSpace": space, "Pool": self.subnet, "SubPool": "", "V6": False}
            self.pool = _done(
                plugin, "IpamDriver.RequestPool", {**asked, "Options": {"parent": self.parent}}
            )["PoolID"]
            gateway = {"PoolID": self.pool, "Address": self.gateway, "Options": GATEWAY_TYPE}
            _done(plugin, "IpamDriver.RequestAddress", gateway)
        data = {"AddressSpace": space, "Pool": self.subnet, "Gateway": f"{self.gateway}/{self.length}"}
        generic = {"com.docker.network.generic": {"parent": self.parent, **self.options}}
        body = {"NetworkID": self.network_id, "Options": generic, "IPv4Data": [data], "IPv6Data": []}
        _done(plugin, "NetworkDriver.CreateNetwork", body)

    def close(self, plugin: Plugin) -> None:
        """Remove it, as `docker network rm` does."""
        if self.is_ours:
            _done(plugin, "IpamDriver.ReleaseAddress", {"PoolID": self.pool, "Address": self.gateway})
            _done(plugin, "IpamDriver.ReleasePool", {"PoolID": self.pool})
        _done(plugin, "NetworkDriver.DeleteNetwork", {"NetworkID": self.network_id})


def _done(plugin: Plugin, method: str, body: Mapping[str, Any]) -> dict[str, Any]:
    answer = plugin.call(method, body)
    if "Err" in answer:
        raise AssertionError(f"{method}: {answer['Err']}")
    return answer


@define
class Ledger:
    """What all callers share."""

    tally: Tally
    lock: threading.Lock = field(factory=threading.Lock)
    held: set[tuple[str, str]] = field(factory=set)
    """Pairs of subnet and address that containers have."""
    forgotten_endpoints: dict[str, str] = field(factory=dict)
    """Endpoints that the engine gave up without seeing them removed, with their networks."""
    forgotten_addresses: set[tuple[str, str]] = field(factory=set)
    """The same for addresses: pairs of pool and address."""
    unheard_addresses: int = 0
    """Addresses that may have been granted in a reply that got lost."""
    lives: int = 0
    counts: Counter[str] = field(factory=Counter)

    def next_number(self) -> int:
        """Number a life."""
        with self.lock:
            self.lives += 1
            return self.lives

    def summary(self) -> dict[str, str]:
        """Return the counts by name."""
        return {name: str(count) for name, count in sorted(self.counts.items())}


class CutOff(Exception):
    """The engine got no answer, or an error for a lost body: the outcome of the call is unknown."""


class Wrong(Exception):
    """The plugin did what it must not."""


class Caller:
    """One container after the other, as an engine starts and stops them."""

    def __init__(self, plugin: Plugin, ledger: Ledger, host: str, box: str, random: Random) -> None:
        """Some links are moved between the namespaces `host` and `box`, if there is a box."""
        self.random = random
        self._ledger = ledger
        self._host, self._box = host, box
        self._client = PluginClient(
            str(plugin.socket), sleep=lambda seconds: time.sleep(seconds * DIAL_WAIT_FACTOR)
        )

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def live(self, net: Net) -> None:
        """Start a container and stop it, with all that an engine does when something fails."""
        number = self._ledger.next_number()
        endpoint = "e" * 48 + f"{number:016x}"
        try:
            outcome = self._lived(net, number, endpoint)
        except Wrong as wrong:
            with self._ledger.lock:
                self._ledger.tally.lose(f"life {number}: {wrong}")
            return
        with self._ledger.lock:
            self._ledger.counts[outcome] += 1
            self._ledger.tally.survive()

    def _lived(self, net: Net, number: int, endpoint: str) -> str:
        address = (
            f"{ip_network(net.subnet)[2 + number % (ip_network(net.subnet).num_addresses - 4)]}/{net.length}"
        )
        if net.is_ours:
            try:
                address = self._call("IpamDriver.RequestAddress", PoolID=net.pool, Address="", Options=None)[
                    "Address"
                ]
            except CutOff:
                with self._ledger.lock:
                    self._ledger.unheard_addresses += 1
                return "lives cut off at the address"
            self._hold(net, address)
        about = {"NetworkID": net.network_id, "EndpointID": endpoint}
        interface = {"Address": address, "AddressIPv6": "", "MacAddress": ""}
        try:
            self._call("NetworkDriver.CreateEndpoint", **about, Interface=interface, Options={})
        except CutOff:
            self._forget_endpoint(net, endpoint)  # engines do not ask for its removal
            self._release(net, address)
            return "lives cut off at the endpoint"
        try:
            joined = self._call(
                "NetworkDriver.Join", **about, SandboxKey=f"/var/run/docker/netns/{number:012x}"
            )
        except CutOff:
            if self.random.random() < 0.5:  # from 28 on
                self._attempt("NetworkDriver.Leave", **about)
            self._delete(net, endpoint, about)
            self._release(net, address)
            return "lives cut off at the join"
        moved = (
            self._box != ""
            and self.random.random() < 0.25
            and self._moved_in(joined["InterfaceName"]["SrcName"])
        )
        self._attempt("NetworkDriver.EndpointOperInfo", **about)
        self._attempt("NetworkDriver.Leave", **about)
        if moved:
            self._moved_out(joined["InterfaceName"]["SrcName"])
        self._delete(net, endpoint, about)
        self._release(net, address)
        return "lives whole"

    def roll_back(self) -> None:
        """Remove what was forgotten."""
        for endpoint, network_id in list(self._ledger.forgotten_endpoints.items()):
            self._call("NetworkDriver.DeleteEndpoint", NetworkID=network_id, EndpointID=endpoint)
        for pool, address in list(self._ledger.forgotten_addresses):
            self._call("IpamDriver.ReleaseAddress", PoolID=pool, Address=address)
        self._ledger.forgotten_endpoints.clear()
        self._ledger.forgotten_addresses.clear()

    def _call(self, method: str, **body: Any) -> dict[str, Any]:
        try:
            return self._client.call(method, body)
        except PluginRefused as refused:
            if CUT_OFF in str(refused):
                raise CutOff(method) from None
            raise Wrong(f"{method} {body} was refused: {refused}") from None
        except (NoReply, OSError):
            self._client.close()
            raise CutOff(method) from None
        except BadReply as bad:
            raise Wrong(f"{method} {body}: {bad}") from None

    def _attempt(self, method: str, **body: Any) -> bool:
        """Make a call whose failure engines ignore."""
        try:
            self._call(method, **body)
        except CutOff:
            return False
        return True

    def _delete(self, net: Net, endpoint: str, about: dict[str, str]) -> None:
        if not self._attempt("NetworkDriver.DeleteEndpoint", **about):
            self._forget_endpoint(net, endpoint)

    def _forget_endpoint(self, net: Net, endpoint: str) -> None:
        with self._ledger.lock:
            self._ledger.forgotten_endpoints[endpoint] = net.network_id

    def _hold(self, net: Net, address: str) -> None:
        with self._ledger.lock:
            if (net.subnet, address) in self._ledger.held:
                raise Wrong(f"{address} was handed out twice")
            self._ledger.held.add((net.subnet, address))

    def _release(self, net: Net, address: str) -> None:
        if not net.is_ours:
            return
        with self._ledger.lock:
            self._ledger.held.discard((net.subnet, address))
        bare = address.partition("/")[0]
        if not self._attempt("IpamDriver.ReleaseAddress", PoolID=net.pool, Address=bare):
            with self._ledger.lock:
                self._ledger.forgotten_addresses.add((net.pool, bare))

    def _moved_in(self, link: str) -> bool:
        """Take the link into a sandbox; now and then that is gone before the link comes back."""
        moved = attempt("ip", "-n", self._host, "link", "set", link, "netns", self._box)
        if moved.status:
            raise Wrong(f"link {link} was promised, and could not be moved: {moved.stderr}")
        attempt("ip", "-n", self._box, "link", "set", link, "up")
        return True

    def _moved_out(self, link: str) -> None:
        if self.random.random() < 0.2:
            attempt("ip", "-n", self._box, "link", "delete", link)
        else:
            attempt("ip", "-n", self._box, "link", "set", link, "down")
            attempt("ip", "-n", self._box, "link", "set", link, "netns", self._host)
