"""
A model of an engine: the order of its calls, what it knows, and what it does after a call broke.

The broken call is repeated without its body, then undone; nothing is replayed, and an object whose removal failed is
forgotten (docs/reference/protocol).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from macvlan_twisted.link_names import endpoint_link_name
from macvlan_twisted.protocol.messages import LOCAL_ADDRESS_SPACE
from tests.torture.world import Cut, Unreached, World

Answer = dict[str, Any]
GATEWAY = {"RequestAddressType": "com.docker.network.gateway"}
ENDPOINT_NAME = "com.docker.network.endpoint.name"
RETRY, ROLL_BACK, FORGET = "retry", "roll back", "forget"
REACTIONS = (RETRY, ROLL_BACK, FORGET)


class Refused(Exception):
    """The plugin answered with an error."""


@dataclass(frozen=True)
class NetworkSpec:
    """The options of ``docker network create``."""

    options: dict[str, str] = field(default_factory=lambda: {"parent": "eth1"})
    ipam: str = "ours"
    """``ours``, ``docker`` (the engine's own) or ``null``."""
    pools: tuple[tuple[str, str, str], ...] = (("192.168.77.0/24", "192.168.77.32/27", "192.168.77.1"),)
    """Each with its range and its gateway."""
    ipam_options: dict[str, str] = field(default_factory=dict)
    auxiliary: tuple[str, ...] = ()
    internal: bool = False


@dataclass
class Net:
    """A network that the engine knows."""

    id: str
    spec: NetworkSpec
    name: str = ""
    pools: list[str] = field(default_factory=list)
    next_own: int = 64


@dataclass
class Container:
    """A container's endpoint that the engine knows."""

    id: str
    net: Net
    number: int
    addresses: list[tuple[str, str]] = field(default_factory=list)
    """Each behind its pool, that is empty where the plugin does not manage addresses."""
    mac: str = ""
    leased: str = ""
    """The address that the plugin chose, where there is no address management."""
    joined: bool = False

    @property
    def link(self) -> str:
        """The name of its link in the host."""
        return endpoint_link_name(self.id)


@dataclass
class EngineView:
    """What the engine knows to exist, to be gone, and what may exist besides."""

    pools: dict[str, set[str]] = field(default_factory=dict)
    networks: dict[str, Net] = field(default_factory=dict)
    containers: dict[str, Container] = field(default_factory=dict)
    gone: set[tuple[str, ...]] = field(default_factory=set)
    """What was removed, and acknowledged."""
    excused: set[tuple[str, ...]] = field(default_factory=set)
    """What may exist although nobody will remove it: the call that made or removed it broke."""


class Docker:
    """
    :param reaction: what it does after a call broke.
    :param version: 20 or 29, which roll back differently.
    """

    def __init__(self, world: World, random: Random, reaction: str = ROLL_BACK, version: int = 29) -> None:
        """Know of nothing."""
        self.world = world
        self.random = random
        self.reaction = reaction
        self.version = version
        self.view = EngineView()
        self.cut: str = ""
        """The call that broke."""
        self.wrong: list[str] = []
        """Wrong replies."""
        self.expects_refusals = False
        """Whether a refused removal is allowed."""
        self.refusals: list[str] = []
        """The errors of refused calls."""
        self.patience = 30.0
        """Seconds to wait for an answer."""
        self.rules_of_life: Callable[[int], tuple[dict[str, Any], ...]] = lambda life: ()
        self.when_up: Callable[[], bool] = lambda: True
        """Called after each start; false if the program ended meanwhile."""
        self.is_rebuilt = False
        """Whether state was lost, and rebuilt with other PoolIDs than those that the engine has."""
        self._ids = 0

    def _id(self) -> str:
        self._ids += 1
        return f"{self.random.getrandbits(224):056x}{self._ids:08x}"

    # Calls.

    def up(self) -> None:
        """Start the plugin, again if it was killed while it started."""
        for _ in range(4):
            if self.world.start(*self.rules_of_life(self.world.life + 1)) and self.when_up():
                return
        raise RuntimeError(f"the plugin does not start:\n{self.world.log()}")

    def call(self, method: str, body: Answer) -> Answer:
        """
        Make a call; a plugin that is not there is waited for, with the body intact.

        :raises Refused: an error came back. :raises Cut: the plugin went away; it is there again.
        """
        for _ in range(3):
            try:
                answer = self.world.call(method, body, self.patience)
            except Unreached:
                self.up()
                continue
            except TimeoutError:
                if not self.expects_refusals:
                    raise
                self.refusals.append(f"{method} was not answered")
                raise Refused(f"{method}: no answer within {self.patience:g} s") from None
            except Cut:
                if self.expects_refusals and self.world.wait(0) is None:
                    self.refusals.append(f"{method}: the connection was closed")
                    raise Refused(f"{method}: the connection was closed") from None
                self.cut = method
                self.up()
                if self.reaction == RETRY:
                    self._again_without_body(method)
                raise
            if answer.get("Err") or answer.get("Error"):
                text = str(answer.get("Err") or answer.get("Error"))
                if "bug" in text or "Traceback" in text or len(text.split()) < 3:
                    self.wrong.append(f"{method} was refused with {text!r}")
                self.refusals.append(f"{method}: {text}")
                raise Refused(f"{method}: {text}")
            return answer
        raise RuntimeError(f"{method} does not get through:\n{self.world.log()}")

    def _again_without_body(self, method: str) -> None:
        try:
            answer = self.world.call(method, None)
        except (Unreached, Cut):
            self.up()
            return
        if not answer.get("Err"):
            self.wrong.append(f"{method} with an empty body was answered {answer}")

    def undo(self, method: str, body: Answer) -> bool:
        """Make a removing call, whose failure the engine ignores. Return whether it succeeded."""
        try:
            self.call(method, body)
        except Refused as refused:
            if not self.expects_refusals:
                self.wrong.append(f"removal refused: {refused}")
            return False
        except Cut:
            return False
        return True

    # Networks.

    def create_network(self, spec: NetworkSpec, name: str = "lan") -> Net:
        """As ``docker network create``; on an error it is undone, and the error raised."""
        net = Net(self._id(), spec, name)
        data: dict[bool, list[Answer]] = {False: [], True: []}
        try:
            for pool, part, gateway in spec.pools:
                is_v6 = ":" in pool
                space = {"ours": LOCAL_ADDRESS_SPACE, "docker": "LocalDefault", "null": "null"}[spec.ipam]
                offered = {"AddressSpace": space, "Pool": pool}
                if spec.ipam == "ours":
                    offered |= self._open_pool(net, pool, part, gateway, is_v6)
                elif gateway:
                    offered["Gateway"] = f"{gateway}/{pool.partition('/')[2]}"
                data[is_v6].append(offered)
            generic = dict(spec.options)
            options: Answer = {
                "com.docker.network.enable_ipv6": bool(data[True]),
                "com.docker.network.generic": generic,
            }
            if spec.internal:
                options["com.docker.network.internal"] = True
            body = {"NetworkID": net.id, "Options": options, "IPv4Data": data[False], "IPv6Data": data[True]}
            self.call("NetworkDriver.CreateNetwork", body)
        except (Cut, Refused) as error:
            if isinstance(error, Cut) and self.cut == "NetworkDriver.CreateNetwork":
                self.view.excused.add(("network", net.id))
            if isinstance(error, Cut) and self.reaction == FORGET:
                self._forget_pools(net)
            else:
                self._release_pools(net)
            raise
        self.view.networks[net.id] = net
        return net

    def _open_pool(self, net: Net, pool: str, part: str, gateway: str, is_v6: bool) -> Answer:
        request = {"AddressSpace": LOCAL_ADDRESS_SPACE, "Pool": pool, "SubPool": part, "V6": is_v6}
        try:
            granted = self.call("IpamDriver.RequestPool", {**request, "Options": net.spec.ipam_options})
        except Cut:
            self.view.excused.add(("a pool",))
            raise
        pool_id = granted["PoolID"]
        net.pools.append(pool_id)
        self.view.pools[pool_id] = set()
        given = granted.get("Data", {}).get("com.docker.network.gateway", "")
        if given:
            self.view.pools[pool_id].add(given.partition("/")[0])
        elif gateway:
            given = self.request_address(pool_id, gateway, GATEWAY)
        offered: Answer = {"Pool": granted["Pool"], **({"Gateway": given} if given else {})}
        if not is_v6 and net.spec.auxiliary:
            offered["AuxAddresses"] = {
                f"aux{number}": self.request_address(pool_id, each, None)
                for number, each in enumerate(net.spec.auxiliary)
            }
        return offered

    def request_address(self, pool: str, address: str, options: Any) -> str:
        """As for a gateway, an auxiliary address or a container; returns it with its prefix length."""
        body = {"PoolID": pool, "Address": address, "Options": options}
        try:
            given = str(self.call("IpamDriver.RequestAddress", body)["Address"])
        except Cut:
            self.view.excused.add(("address", pool, address))  # the engine does not undo that
            known = self.view.gone
            self.view.gone = {
                each for each in known if each[:2] != ("address", pool)
            }  # it may be one of them
            raise
        bare = given.partition("/")[0]
        if bare in self.view.pools[pool]:
            self.wrong.append(f"{bare} was handed out twice")
        self.view.pools[pool].add(bare)
        self.view.gone.discard(("address", pool, bare))
        return given

    def release_address(self, pool: str, address: str) -> None:
        """Release an address; the engine forgets it in any case."""
        self.view.pools.get(pool, set()).discard(address)
        if self.undo("IpamDriver.ReleaseAddress", {"PoolID": pool, "Address": address}):
            self.view.gone.add(("address", pool, address))
        else:
            self.view.excused.add(("address", pool, address))

    def _release_pools(self, net: Net) -> None:
        for pool in net.pools:
            for address in sorted(self.view.pools.get(pool, ())):
                if not any((pool, address) in each.addresses for each in self.view.containers.values()):
                    self.release_address(pool, address)
            self.view.pools.pop(pool, None)
            if self.undo("IpamDriver.ReleasePool", {"PoolID": pool}):
                self.view.gone.add(("pool", pool))
            else:
                self.view.excused.add(("pool", pool))

    def _forget_pools(self, net: Net) -> None:
        for pool in net.pools:
            self.view.pools.pop(pool, None)
            self.view.excused.add(("pool", pool))

    def remove_network(self, net: Net) -> None:
        """As ``docker network rm``: address management first."""
        del self.view.networks[net.id]
        self._release_pools(net)
        if self.undo("NetworkDriver.DeleteNetwork", {"NetworkID": net.id}):
            self.view.gone.add(("network", net.id))
            self.view.excused = {
                each for each in self.view.excused if not (each[0] == "endpoint" and each[2:] == (net.id,))
            }
        else:
            self.view.excused.add(("network", net.id))

    # Containers.

    def start(self, net: Net, *, mac: str = "", address: str = "", name: str = "") -> Container:
        """As ``docker run``; on an error it is undone, and the error raised."""
        container = Container(self._id(), net, self._ids, mac=mac)
        try:
            self._give_addresses(container, address, name)
        except (Cut, Refused):
            # Engines do not give back what they got before the one that failed.
            for pool, each in container.addresses:
                self.view.pools.get(pool, set()).discard(each)
                self.view.excused.add(("address", pool, each))
            raise
        about = {"NetworkID": net.id, "EndpointID": container.id}
        try:
            self._create_endpoint(container, about)
        except (Cut, Refused) as error:
            if isinstance(error, Cut):
                self.view.excused.add(("endpoint", container.id, net.id))
            self._let_go(container, forget=isinstance(error, Cut) and self.reaction == FORGET)
            raise
        self.view.containers[container.id] = container
        try:
            self._join(container, about)
        except (Cut, Refused) as error:
            if isinstance(error, Cut) and self.reaction == FORGET:
                self.forget(container)
            else:
                if self.version >= 29:
                    self.undo("NetworkDriver.Leave", about)
                self._delete_endpoint(container, about)
            raise
        return container

    def _give_addresses(self, container: Container, address: str, name: str) -> None:
        net = container.net
        if net.spec.ipam == "ours":
            options = {ENDPOINT_NAME: name} if name and self.version >= 29 else None
            for number, pool in enumerate(net.pools):
                given = self.request_address(pool, address if not number else "", options)
                container.addresses.append((pool, given.partition("/")[0]))
        elif net.spec.ipam == "docker":
            for pool, _part, _gateway in net.spec.pools:
                net.next_own += 1
                prefix = pool.partition("/")[0]
                last = f"{net.next_own:x}" if ":" in pool else f"{net.next_own}"
                container.addresses.append(("", address or prefix.removesuffix("0") + last))

    def _create_endpoint(self, container: Container, about: Answer) -> None:
        lengths = {":" in pool: pool.partition("/")[2] for pool, _, _ in container.net.spec.pools}
        cidrs = {":" in each: f"{each}/{lengths[':' in each]}" for _, each in container.addresses}
        interface = {
            "Address": cidrs.get(False, ""),
            "AddressIPv6": cidrs.get(True, ""),
            "MacAddress": container.mac,
        }
        body = {**about, "Interface": interface, "Options": {}}
        answer = self.call("NetworkDriver.CreateEndpoint", body).get("Interface") or {}
        for member, asked in interface.items():
            if asked and answer.get(member):
                self.wrong.append(f"CreateEndpoint modified {member}")
        container.mac = container.mac or answer.get("MacAddress", "")
        container.leased = answer.get("Address", "")

    def _join(self, container: Container, about: Answer) -> None:
        sandbox = {"SandboxKey": self.world.box_path(container.number), "Options": {}}
        joined = self.call("NetworkDriver.Join", {**about, **sandbox})
        name = joined["InterfaceName"]["SrcName"]
        if not self.world.into_box(name, container.number):
            self.wrong.append(f"after Join there is no link {name}")
        container.joined = True
        if self.version >= 29:
            self.call("NetworkDriver.EndpointOperInfo", about)

    def _let_go(self, container: Container, forget: bool = False) -> None:
        for pool, address in container.addresses:
            if not pool:
                continue
            if forget:
                self.view.pools.get(pool, set()).discard(address)
                self.view.excused.add(("address", pool, address))
            else:
                self.release_address(pool, address)

    def _delete_endpoint(self, container: Container, about: Answer) -> None:
        self.world.out_of_box(container.link, container.number)
        self.view.containers.pop(container.id, None)
        if self.undo("NetworkDriver.DeleteEndpoint", about):
            self.view.gone.add(("endpoint", container.id))
        else:
            self.view.excused.add(("endpoint", container.id, container.net.id))
        self._let_go(container)

    def stop(self, container: Container) -> None:
        """As ``docker stop``."""
        about = {"NetworkID": container.net.id, "EndpointID": container.id}
        before = self.cut
        self.undo("NetworkDriver.Leave", about)
        if self.cut != before and self.reaction == FORGET:
            self.world.out_of_box(container.link, container.number)
            self.forget(container)
            return
        self._delete_endpoint(container, about)

    def forget(self, container: Container) -> None:
        """Drop a container silently, as engines do."""
        self.view.containers.pop(container.id, None)
        self.view.excused.add(("endpoint", container.id, container.net.id))
        for pool, address in container.addresses:
            if pool:
                self.view.pools.get(pool, set()).discard(address)
                self.view.excused.add(("address", pool, address))

    def take_down(self) -> None:
        """Remove everything that the engine knows."""
        for container in list(self.view.containers.values()):
            self.stop(container)
        for net in list(self.view.networks.values()):
            self.remove_network(net)

    def wait(self, seconds: float) -> None:
        """Let background work proceed."""
        time.sleep(seconds)
