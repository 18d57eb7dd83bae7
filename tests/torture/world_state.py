"""A docker host with containers of every kind, and what must be true of them whenever everything has been started.

What the engine does with a container by itself shows in its *twin*: a container with the same restart policy and no
network, in which we have no say.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from macvlan_twisted.ipam.requests import Purpose
from tests.integration.containers import AT_ONCE, SUBNET
from tests.lab.commands import Finished, within
from tests.lab.dhcp_server import DhcpServer
from tests.lab.docker_host import Container, DockerHost
from tests.lab.engine import Engine
from tests.lab.lan import Lan
from tests.lab.plugin import DEFAULTS, Plugin, ShortGracePeriods
from tests.torture.invariants import read_state

OURS, DOCKERS, DHCP = "ours", "dockers", "dhcp"
NETWORKS = {
    OURS: ("--ipam-driver=macvlan-twisted", *SUBNET, "--ip-range=192.168.77.64/26", "--opt=host_access=true"),
    DOCKERS: (*SUBNET, "--ip-range=192.168.77.128/26"),
    DHCP: ("--ipam-driver=null", "--opt=dhcp=true", "--opt=parent=eth1"),
}
COLLECTION = ShortGracePeriods(idle=20.0)
"""An engine tries each call for 15 seconds: what it has not spoken of for longer, it has dropped."""
COLLECT_EVERY = 4
"""Seconds from one round of the collection to the next."""
PAUSE = 0.3
"""Seconds between two requests to the engine."""
LEASED = "192.168.77.200,192.168.77.230"
POLICIES = ("no", "always", "unless-stopped", "on-failure")
RESTED = "rested"
"""Marks containers with ``unless-stopped`` that somebody has stopped."""


@dataclass(frozen=True)
class ContainerSpec:
    """One container: its network (none for a twin), its restart policy, and the address that was chosen for it."""

    name: str
    policy: str
    network: str = ""
    chosen: str = ""

    def words(self) -> tuple[str, ...]:
        """Say how it is run."""
        policy = "unless-stopped" if self.policy == RESTED else self.policy
        chosen = (f"--ip={self.chosen}",) if self.chosen else ()
        network = self.network or "none"
        return (
            "--detach",
            f"--name={self.name}",
            f"--network={network}",
            f"--restart={policy}",
            AT_ONCE,
            *chosen,
        )


TWINS = tuple(ContainerSpec(f"twin-{policy}", policy) for policy in (*POLICIES, RESTED))
CONTAINERS = (
    *(ContainerSpec(f"ours-{policy}", policy, OURS) for policy in (*POLICIES, RESTED)),
    ContainerSpec("ours-chosen", "always", OURS, "192.168.77.100"),
    ContainerSpec("dockers-chosen", "always", DOCKERS, "192.168.77.150"),
    ContainerSpec("dockers-on-failure", "on-failure", DOCKERS),
    ContainerSpec("dhcp-always", "always", DHCP),
    ContainerSpec("dhcp-unless-stopped", "unless-stopped", DHCP),
)

MANY = {"ours-no", "ours-rested", "dockers-on-failure", "dhcp-unless-stopped"}
"""The containers that are left out where few are wanted."""


@dataclass
class WorldState:
    """The host, its containers, and what was wrong."""

    host: DockerHost
    server: DhcpServer | None
    few: bool = False
    """Whether it has few containers, for orders in which an engine waits for each of them."""
    specs: list[ContainerSpec] = field(default_factory=list)
    stopped: set[str] = field(default_factory=set)
    """The containers that somebody has stopped on the way."""
    lost: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)

    @property
    def engine(self) -> Engine:
        """The engine."""
        return self.host.engine

    @property
    def plugin(self) -> Plugin:
        """Our service."""
        return self.host.plugin

    def populate(self) -> None:
        """Make networks and containers; all of them run, but for those that somebody has stopped."""
        used = [name for name in NETWORKS if name != DHCP or self.server is not None]
        for name in used:
            self.host.create(name, *NETWORKS[name])
        wanted = [
            each for each in CONTAINERS if each.network in used and not (self.few and each.name in MANY)
        ]
        self.run(*TWINS, *wanted)
        rested = [each.name for each in self.specs if each.policy == RESTED]
        self.engine.docker("stop", *rested)
        self.check_all_talk(each for each in self.specs if each.policy != RESTED)

    def run(self, *specs: ContainerSpec) -> None:
        """Run containers, four at a time."""
        with ThreadPoolExecutor(4) as pool:
            list(
                pool.map(
                    lambda each: self.engine.docker("run", *each.words(), "busybox", "sleep", "3600"), specs
                )
            )
        self.specs += specs

    def find(self, *policies: str) -> set[str]:
        """Name the containers with one of these policies."""
        return {each.name for each in self.specs if each.policy in policies}

    def running(self) -> set[str]:
        """Name the containers that run."""
        return {each["Names"][0].lstrip("/") for each in self.engine.ask("GET", "/containers/json")}

    def expect_running(self, names: set[str], seconds: float) -> None:
        """Exactly these run within so many seconds, and go on to."""
        within(seconds, lambda: self.running() == names, pause=PAUSE)
        time.sleep(1)
        found = self.running()
        if found != names:
            self.lost += [f"{name} should run, and does not" for name in sorted(names - found)]
            self.lost += [f"{name} runs, and should not" for name in sorted(found - names)]

    def expect_running_at_least(self, names: set[str], seconds: float) -> None:
        """These run within so many seconds, whatever becomes of others."""
        if not within(seconds, lambda: names <= self.running(), pause=PAUSE):
            self.lost += [f"{name} should run, and does not" for name in sorted(names - self.running())]

    def bring_up(self, names: Iterable[str], patience: float = 0) -> None:
        """Start containers as a user does, who tries again for so many seconds what was refused."""

        def start(name: str) -> Finished:
            deadline = time.monotonic() + patience
            while True:
                ended = self.engine.attempt_docker("start", name, timeout=120)
                if ended.status == 0 or time.monotonic() > deadline:
                    return ended
                time.sleep(5)

        with ThreadPoolExecutor(4) as pool:
            for ended in pool.map(start, names):
                if ended.status != 0:
                    self.lost.append(f"cannot be started: {ended.stderr.strip()}")

    def check_all_talk(self, specs: Iterable[ContainerSpec]) -> None:
        """Each has an address and a MAC that nobody else has, and is reached by those who should reach it."""
        asked = [each for each in specs if each.network]
        with ThreadPoolExecutor(4) as pool:
            seen = list(pool.map(self._look_at, asked))
        for what in ("address", "mac"):
            values = [each[what] for each in seen if each[what]]
            twice = {value for value in values if values.count(value) > 1}
            self.lost += [f"{what} {value} is that of two" for value in sorted(twice)]

    def _look_at(self, spec: ContainerSpec) -> dict[str, str]:
        lan, name = self.host.lan, spec.name
        try:
            container = Container(self.engine, name)
            nic = container.links()["eth0"]
            addresses = [each["local"] for each in nic["addr_info"] if each["scope"] == "global"]
            mac = str(nic["address"])
        except Exception as error:
            self.lost.append(f"{name} has no link: {error!r}"[:300])
            return {"address": "", "mac": ""}
        if len(addresses) != 1:
            self.lost.append(f"{name} has addresses {addresses}")
            return {"address": "", "mac": mac}
        address = addresses[0]
        shown = self.engine.ask("GET", f"/containers/{name}/json")["NetworkSettings"]["Networks"][
            spec.network
        ]
        if spec.network != DHCP and shown["IPAddress"] != address:
            self.lost.append(f"{name} has {address}, the engine says {shown['IPAddress']}")
        if spec.chosen and spec.chosen != address:
            self.lost.append(f"{name} has {address} in place of {spec.chosen}")
        if spec.network == DHCP and self.server and self.server.addresses().get(mac) != address:
            self.lost.append(f"{name} has {address}, which the server has not leased to {mac}")
        for place in ("neighbour", *(["host"] if spec.network == OURS else [])):
            if not lan.ping(place, address):
                self.lost.append(f"{name} ({address}) is not reached from the {place}")
        if not container.ping("192.168.77.1"):
            self.lost.append(f"{name} ({address}) does not reach the gateway")
        return {"address": address, "mac": mac}

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return the rows of the plugin's state, which needs a look while it is stopped."""
        self.plugin.stop()
        try:
            return self.host.rows()
        finally:
            self.plugin.start(seconds=60)

    def forgotten(self) -> set[str]:
        """Return endpoints and addresses in the plugin's state that the engine does not know.

        Endpoints that the plugin should know, and does not, count as lost.
        """
        rows = self.rows()
        known = {str(row[0]) for row in rows["endpoints"]}
        taken = [str(row[1]) for row in rows["addresses"] if row[2].startswith(Purpose.ENDPOINT.value)]
        of_engine = self._of_engine()
        self.lost += [f"the plugin does not know endpoint {each[:12]}" for each in sorted(of_engine - known)]
        found = {f"endpoint {each[:12]}" for each in known - of_engine}
        if len(taken) > (in_use := self._in_use()):
            found.add(f"{len(taken) - in_use} of the addresses {', '.join(taken)}")
        return found

    def has_collected(self) -> bool:
        """Whether a copy of the plugin's state has nothing that the engine does not know.

        Stopping the plugin for a better look would restart the grace periods.
        """
        state = read_state(self.plugin.state_dir)
        taken = [each for each in state.addresses.values() if each == Purpose.ENDPOINT.value]
        return set(state.endpoints) <= self._of_engine() and len(taken) <= self._in_use()

    def _in_use(self) -> int:
        """How many addresses of ours containers have."""
        return sum(each.network == OURS for each in self.specs if each.name in self.running())

    def _of_engine(self) -> set[str]:
        """The endpoints that the engine knows."""
        return {
            endpoint
            for network in NETWORKS
            if network != DHCP or self.server is not None
            for each in self.engine.ask("GET", f"/networks/{network}")["Containers"].values()
            if (endpoint := each["EndpointID"])
        }

    def remove_containers(self) -> None:
        """Remove all containers."""
        names = self.engine.docker("ps", "--all", "--quiet", "--no-trunc").split()
        self.engine.docker("rm", "--force", *names, timeout=120)
        self.specs.clear()

    def check_nothing_is_left(self) -> None:
        """Remove networks, and stop the plugin."""
        self.engine.clear()
        if self.server is not None:
            server = self.server
            if not within(60, lambda: server.leases() == [], pause=PAUSE):
                self.leaked += [f"lease {each.address} of {each.mac}" for each in server.leases()]
        self.plugin.stop()
        self.leaked += self.host.remains()


@contextmanager
def populated_world(
    version: str, *, live_restore: bool, socket_unit: bool, dhcp: bool, few: bool = False
) -> Iterator[WorldState]:
    """Run an engine (its containerd a daemon of its own, as under systemd), our service and containers on a LAN."""
    with ExitStack() as open_:
        lan = open_.enter_context(Lan())
        engine = Engine(lan, version, live_restore=live_restore, external_containerd=True)
        open_.enter_context(engine)
        engine.load_busybox()
        server = open_.enter_context(DhcpServer(lan, range=LEASED)) if dhcp else None
        arguments = (
            *DEFAULTS,
            *("--docker-host", engine.docker_host, "--reconcile-interval", str(COLLECT_EVERY)),
        )
        plugin = Plugin(
            lan,
            engine.plugins_dir,
            inside=engine,
            arguments=arguments,
            socket_unit=socket_unit,
            short_grace_periods=COLLECTION,
        )
        open_.enter_context(plugin)
        made = WorldState(DockerHost(engine, plugin), server, few)
        made.populate()
        yield made
