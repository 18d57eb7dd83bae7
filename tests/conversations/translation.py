"""From what the recorder handed out to what our service hands out.

An engine repeats in later calls what it was given in earlier replies: pool ids, subnets, addresses, names of
address spaces, options of AllocateNetwork. Our service gives others than the recorder did, so each later
body is rewritten; everything that the engine or its user chose stays as it was.
"""

from __future__ import annotations

import json
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network
from typing import Any

from attrs import define, field

from .recording import Call

Network = IPv4Network | IPv6Network
Json = dict[str, Any]

GATEWAY_OPTION = "com.docker.network.gateway"
GENERIC_OPTIONS = "com.docker.network.generic"


class Unknown(LookupError):
    """The call names something that our service never granted: no engine would make it."""


@define
class Pool:
    """One pool: as the recorder called it, and as we do."""

    our_id: str
    theirs: Network | None
    ours: Network
    gateway_in_data: str | None = None
    #: In which life of dockerd it was granted.
    life: int = 0


@define
class Translation:
    """What the replies of one conversation have granted so far."""

    #: Counts the starts of dockerd.
    life: int = field(default=0, init=False)
    _pools: dict[str, list[Pool]] = field(factory=dict, init=False)
    #: By recorded subnet and recorded address: our addresses in CIDR, the last one granted last. A subnet may
    #: be asked for anew while addresses of before are still lent, so the pool id is no key.
    _addresses: dict[tuple[Network | None, str], list[str]] = field(factory=dict, init=False)
    _spaces: dict[str, str] = field(factory=dict, init=False)
    _pools_of_network: dict[str, list[Pool]] = field(factory=dict, init=False)
    _allocated_options: dict[str, Json] = field(factory=dict, init=False)

    def pool(self, recorded_id: str) -> Pool:
        """The pool that the recorder called *recorded_id*, the last one granted under that name."""
        stack = self._pools.get(recorded_id)
        if not stack:
            raise Unknown(f"pool {recorded_id!r}")
        return stack[-1]

    def replayed_pool(self, call: Call) -> Pool | None:
        """The pool of an earlier dockerd's life that is asked for again, as the recorder had wanted it."""
        asked = ip_network(call.body["Pool"], strict=False) if call.body["Pool"] else None
        for stack in self._pools.values():
            for pool in stack:
                if asked is not None and pool.theirs == asked and pool.life < self.life:
                    return pool
        return None

    def is_lent(self, call: Call) -> bool:
        """True if the address that is asked for was granted before and not given back."""
        body = call.body
        if not (body["Address"] and self.has_pool(body["PoolID"])):
            return False
        return bool(self._addresses.get((self.pool(body["PoolID"]).theirs, body["Address"])))

    def rename_pool(self, recorded_id: str, pool: Pool) -> None:
        """From now on the engine calls *pool* as the recorder did."""
        self._pools.setdefault(recorded_id, []).append(pool)

    def has_pool(self, recorded_id: str) -> bool:
        """True while a pool of that recorded name is granted."""
        return bool(self._pools.get(recorded_id))

    def body(self, call: Call) -> str:
        """The body to send in place of the recorded one; the very same text if nothing in it is ours.

        :raises Unknown: the pool or address in it was never granted.
        """
        if not call.body_text:
            return ""
        body = call.body
        before = json.dumps(body)
        self._rewrite(call.method, body)
        if json.dumps(body) == before:
            return call.body_text
        return json.dumps(body, separators=(",", ":")) + "\n"

    def _rewrite(self, method: str, body: Json) -> None:
        match method:
            case "IpamDriver.RequestPool":
                body["AddressSpace"] = self._space(body["AddressSpace"])
            case "IpamDriver.RequestAddress" | "IpamDriver.ReleaseAddress" if body["PoolID"]:
                pool = self.pool(body["PoolID"])
                body["PoolID"] = pool.our_id
                body["Address"] = self._bare_address(pool, body["Address"])
            case "IpamDriver.ReleasePool" if body["PoolID"]:
                body["PoolID"] = self.pool(body["PoolID"]).our_id
            case "NetworkDriver.CreateNetwork" | "NetworkDriver.AllocateNetwork":
                self._rewrite_network(body)
            case "NetworkDriver.CreateEndpoint":
                self._rewrite_endpoint(body)

    def _space(self, recorded: str) -> str:
        return self._spaces.get(recorded, recorded)

    def _bare_address(self, pool: Pool, text: str) -> str:
        return str(ip_interface(self._address(pool, text)).ip) if text else ""

    def _address(self, pool: Pool, text: str) -> str:
        """One recorded address, with or without prefix length, as our CIDR."""
        recorded = ip_interface(text).ip
        stack = self._addresses.get((pool.theirs, str(recorded)))
        if stack:
            return stack[-1]
        if pool.theirs is None or pool.theirs == pool.ours or recorded not in pool.theirs:
            return f"{recorded}/{pool.ours.prefixlen}"
        offset = int(recorded) - int(pool.theirs.network_address)
        return f"{pool.ours.network_address + offset}/{pool.ours.prefixlen}"

    def _rewrite_network(self, body: Json) -> None:
        network = body["NetworkID"]
        pools = []
        for data in (body.get("IPv4Data") or []) + (body.get("IPv6Data") or []):
            pool = self._pool_of_data(data)
            if pool is None:
                continue
            pools.append(pool)
            data["AddressSpace"] = self._space(data["AddressSpace"])
            data["Pool"] = str(pool.ours)
            if "Gateway" in data:
                data["Gateway"] = self._address(pool, data["Gateway"])
            for name, address in (data.get("AuxAddresses") or {}).items():
                data["AuxAddresses"][name] = self._address(pool, address)
        if pools:
            self._pools_of_network[network] = pools
        if network in self._allocated_options and GENERIC_OPTIONS in body["Options"]:
            body["Options"][GENERIC_OPTIONS] = self._allocated_options[network]

    def _pool_of_data(self, data: Json) -> Pool | None:
        """The remote pool that one element of IPv4Data or IPv6Data is about, if it is about any."""
        is_remote = data["AddressSpace"] in self._spaces
        is_allocation = data["AddressSpace"] == ""
        subnet = ip_network(data["Pool"])
        granted = [pool for stack in self._pools.values() for pool in stack if pool.theirs == subnet]
        if is_remote and not granted:
            raise Unknown(f"pool of subnet {subnet}")
        return granted[-1] if granted and (is_remote or is_allocation) else None

    def _rewrite_endpoint(self, body: Json) -> None:
        pools = self._pools_of_network.get(body["NetworkID"], [])
        interface = body["Interface"]
        for name, version in (("Address", 4), ("AddressIPv6", 6)):
            if not interface.get(name):
                continue
            recorded = str(ip_interface(interface[name]).ip)
            for pool in pools:
                if pool.ours.version == version and self._addresses.get((pool.theirs, recorded)):
                    interface[name] = self._address(pool, interface[name])
                    break

    def learn(self, call: Call, ours: Json) -> None:
        """Take note of our reply to a call, and of what the engine went on with instead."""
        theirs = call.reply if isinstance(call.reply, dict) else {}
        match call.method:
            case "IpamDriver.GetDefaultAddressSpaces":
                for name in ("LocalDefaultAddressSpace", "GlobalDefaultAddressSpace"):
                    if name in theirs:
                        self._spaces[theirs[name]] = ours[name]
            case "IpamDriver.RequestPool" if theirs.get("PoolID"):
                pool = Pool(
                    our_id=ours["PoolID"],
                    theirs=ip_network(theirs["Pool"]) if theirs["Pool"] else None,
                    ours=ip_network(ours["Pool"]),
                    gateway_in_data=(ours.get("Data") or {}).get(GATEWAY_OPTION),
                    life=self.life,
                )
                self._pools.setdefault(theirs["PoolID"], []).append(pool)
            case "IpamDriver.RequestAddress" if theirs.get("Address") and call.body["PoolID"]:
                self.lend(call.body["PoolID"], theirs["Address"], ours["Address"])
            case "IpamDriver.ReleaseAddress" if call.body["PoolID"]:
                self._forget_address(call.body["PoolID"], call.body["Address"])
            case "IpamDriver.ReleasePool" if self._pools.get(call.body["PoolID"]):
                self._pools[call.body["PoolID"]].pop()
            case "NetworkDriver.AllocateNetwork":
                self._allocated_options[call.body["NetworkID"]] = ours.get("Options") or {}

    def lend(self, recorded_pool: str, recorded_address: str, ours: str) -> None:
        """The engine was given *ours* where the recorder had given *recorded_address*."""
        pool = self.pool(recorded_pool)
        key = (pool.theirs, str(ip_interface(recorded_address).ip))
        self._addresses.setdefault(key, []).append(ours)

    def _forget_address(self, recorded_pool: str, recorded_address: str) -> None:
        pool = self.pool(recorded_pool)
        stack = self._addresses.get((pool.theirs, recorded_address))
        if stack:
            stack.pop()
