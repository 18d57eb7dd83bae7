"""Three hosts share the addresses of a LAN while services, members of etcd and the network fail.

The hosts' services are real, and get the calls of engines. Each host runs a member of etcd, too. A try is a failure during
which addresses are requested and released at full speed, and the time that everything takes to be in order again.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import permutations
from random import Random

from attrs import define, field

from tests.lab import fleet as lab
from tests.lab.commands import within
from tests.lab.docker_host import DockerHost
from tests.lab.engine import Engine
from tests.lab.etcd import Cluster
from tests.lab.lan import Lan
from tests.lab.plugin import DEFAULTS, Plugin, ShortGracePeriods
from tests.lab.requirements import missing_for_etcd
from tests.torture.fleet_hosts import FleetHost, Waits, caller, network_of
from tests.torture.holdings import Holdings, Wire
from tests.torture.part import Part, TortureRun

CALLERS = 2
"""Of each host."""
LIMIT = 3.0
"""
Seconds that a call may take. A call waits for etcd for a second at most; on a network that probes addresses, half a second
more; and all processes share the machine.
"""
BEFORE, FAILURE, AFTER = 0.3, 2.0, 0.7
"""Seconds of a try: all is well, something fails, all is well again."""
SETTLED = 2.0
"""Seconds within which everything is in order after a failure, on a quiet machine."""
TRIES = 40
"""After so many the networks are removed, and nothing may be left."""


@define(eq=False)
class Fleet:
    """Hosts, etcd and the LAN, and what was seen of them."""

    lan: Lan
    cluster: Cluster
    wire: Wire
    hosts: list[FleetHost]
    holdings: Holdings
    random: Random
    ways: set[tuple[str, str]] = field(factory=set)
    """Those that are closed."""
    checked: int = 0
    """Frames that were compared with the replies."""

    # Failures.

    def kill_member(self) -> None:
        """One member of etcd dies; two are a quorum."""
        self.random.choice(self.cluster.members).kill()

    def kill_quorum(self) -> None:
        """Two members die, and nothing can be claimed."""
        for member in self.random.sample(self.cluster.members, 2):
            member.kill()

    def pause_member(self) -> None:
        """One member stands still: connections to it are open, and nothing answers."""
        self.random.choice(self.cluster.members).pause()

    def pause_quorum(self) -> None:
        """Two members stand still."""
        for member in self.random.sample(self.cluster.members, 2):
            member.pause()

    def kill_service(self) -> None:
        """A service dies, and is started while the others go on."""
        for _ in range(3):
            self._restart([self.random.choice(self.hosts)])
            time.sleep(0.2)

    def kill_services(self) -> None:
        """All services die at the same moment."""
        self._restart(self.hosts)

    def kill_both(self) -> None:
        """A member and a service die."""
        self.kill_member()
        self.kill_service()

    def unplug(self) -> None:
        """One host, with its member, is alone: its cable is out."""
        self.lan.cable(self.random.choice(self.hosts).name, "out")

    def cut_off(self) -> None:
        """One host, with its member, is alone, and nobody knows that packets are lost."""
        alone = self.random.choice(self.lan.docker_hosts)
        self._close(*[each for each in permutations(self.lan.docker_hosts, 2) if alone in each])

    def cut_one_way(self) -> None:
        """Packets are lost from one host to another, not the other way."""
        self._close(self.random.choice(list(permutations(self.lan.docker_hosts, 2))))

    def cut_and_kill(self) -> None:
        """A host is cut off, and its service dies meanwhile."""
        self.cut_off()
        self.kill_service()

    FAILURES = (
        kill_member,
        kill_quorum,
        pause_member,
        pause_quorum,
        kill_service,
        kill_services,
        kill_both,
        unplug,
        cut_off,
        cut_one_way,
        cut_and_kill,
    )

    def _restart(self, hosts: list[FleetHost]) -> None:
        for each in hosts:
            each.plugin.kill()
        for each in hosts:
            each.plugin.start()

    def _close(self, *ways: tuple[str, str]) -> None:
        for way in ways:
            self.lan.way(*way, "closed")
            self.ways.add(way)

    def repair(self) -> None:
        """End all failures."""
        for way in self.ways:
            self.lan.way(*way, "open")
        self.ways.clear()
        for each in self.hosts:
            self.lan.cable(each.name, "in")
        for member in self.cluster.members:
            if not member.running:
                member.start()
            elif member.paused:
                member.resume()

    # What has to be.

    @contextmanager
    def calls(self) -> Iterator[None]:
        """Request and release addresses on all hosts."""
        over = threading.Event()
        threads = [
            threading.Thread(target=caller, args=(host, Random(self.random.random()), over.is_set))
            for host in self.hosts
            for _ in range(CALLERS)
        ]
        for each in threads:
            each.start()
        try:
            yield
        finally:
            over.set()
            for each in threads:
                each.join()

    def wrong(self) -> list[str]:
        """Return what is wrong with the replies and the frames so far; each is reported once."""
        frames = self.wire.frames()
        found = self.holdings.contradicted(frames[self.checked :])
        self.checked = len(frames)
        for complaints in (self.holdings.doubles, *(host.complaints for host in self.hosts)):
            found += complaints
            complaints.clear()
        waits = self.hosts[0].waits
        found += waits.slow
        waits.slow.clear()
        return found

    def disagreement(self) -> str:
        """Return how etcd, the hosts' disks and the containers disagree; empty if they do not."""
        entries = lab.entries(self.cluster)
        for host in self.hosts:
            rows = lab.rows(host.plugin.state_dir)
            for address, row in rows.items():
                if row.get("is_shared"):
                    continue
                if row["stage"] != "owned" or entries.get(address, {}).get("claim") != row["claim_id"]:
                    return f"{host.name} has the row {row}, and etcd {entries.get(address)}"
            for address, entry in entries.items():
                if entry.get("owner", {}).get("host") == host.name and address not in rows:
                    return f"etcd has {address} for {host.name}, which has no row: {entry}"
            for address in self.holdings.of(host.name):
                entry = entries.get(address, {})
                if (entry.get("owner", {}).get("host"), entry.get("state")) != (host.name, "used"):
                    return f"{address} is used on {host.name}, and etcd has {entry}"
        return ""

    def settled(self) -> str:
        """Wait until all agree, and return how they still do not."""
        self.cluster.wait_until_healthy()
        within(SETTLED, lambda: not self.disagreement(), pause=0.1)
        return self.disagreement()

    def leave(self) -> list[str]:
        """Release everything, remove the networks, and return what is left."""
        for host in self.hosts:
            for address in self.holdings.of(host.name):
                host.release(host.networks[network_of(address)], address)
            for raw in host.networks.values():
                raw.close()
        within(SETTLED, lambda: not self.keys_or_rows(), pause=0.2)
        left = self.keys_or_rows()
        for host in self.hosts:
            host.plugin.stop()
            left += DockerHost(Engine(self.lan, place=host.name), host.plugin).remains()
        return left

    def keys_or_rows(self) -> list[str]:
        """Return what etcd and the hosts' disks have of addresses."""
        found = [f"key {key}: {value}" for key, value in self.cluster.get(f"{lab.PREFIX}/lans/").items()]
        for host in self.hosts:
            found += [f"row on {host.name}: {row}" for row in lab.rows(host.plugin.state_dir).values()]
        return found


@contextmanager
def fleet(torture: TortureRun, waits: Waits) -> Iterator[Fleet]:
    """Build all of it."""
    with ExitStack() as stack:
        lan = stack.enter_context(Lan(hosts=3))
        cluster = stack.enter_context(Cluster(lan, lan.docker_hosts))
        holdings = Holdings()
        hosts = []
        for place in lan.docker_hosts:
            shared = ("--fleet", lab.location(cluster), "--fleet-host", place, "--docker-host", "none")
            plugin = Plugin(
                lan,
                place=place,
                arguments=(*DEFAULTS, *shared),
                short_grace_periods=ShortGracePeriods(idle=2.0, between_checks=1.0),
            )
            hosts.append(FleetHost(place, stack.enter_context(plugin), holdings, waits, LIMIT))
        wire = stack.enter_context(Wire(lan))
        made = Fleet(lan, cluster, wire, hosts, holdings, torture.random)
        for host in hosts:
            plugin = host.plugin
            plugin.service.wait_for_log("fleet: connected as host", seconds=SETTLED)
            host.open()
        yield made


def one_try(torture: TortureRun, made: Fleet, failure: Callable[[Fleet], None]) -> float:
    """Have something fail, and judge what happens; return how long it took to be in order again."""
    with made.calls():
        time.sleep(BEFORE)
        failure(made)
        time.sleep(FAILURE)
        made.repair()
        time.sleep(AFTER)
    began = time.monotonic()
    left = made.settled()
    wrong = made.wrong()
    text = f"{failure.__name__}: "
    if wrong:
        torture.tally.lose(text + "; ".join(wrong[:5]))
    elif left:
        torture.tally.leak(text + left)
    else:
        torture.tally.survive()
    return time.monotonic() - began


def run(torture: TortureRun) -> None:
    """Try all failures, in random order, and all again."""
    waits, refused, slowest = Waits(), Counter[str](), 0.0
    while not torture.is_over and len(torture.tally.findings) < 5:
        with fleet(torture, waits) as made:
            failures: list[Callable[[Fleet], None]] = []
            for _ in range(TRIES):
                failures = failures or torture.random.sample(Fleet.FAILURES, len(Fleet.FAILURES))
                slowest = max(slowest, one_try(torture, made, failures.pop()))
                torture.progress()
                if torture.is_over or torture.tally.findings:
                    break
            if left := made.leave():
                torture.tally.leak(f"after the networks' end: {left[:5]}")
            else:
                torture.tally.survive()
            for host in made.hosts:
                refused.update(host.refused)
            torture.tally.figures["frames on the LAN that claim an address"] = str(len(made.wire.frames()))
    torture.tally.figures["calls"] = ", ".join(
        f"{number} {name}" for name, number in waits.calls.most_common()
    )
    torture.tally.figures["requests refused"] = ", ".join(
        f"{number}: {why}" for why, number in refused.most_common()
    )
    torture.tally.figures["longest call"] = f"{waits.longest:.2f} s"
    torture.tally.figures["slowest to settle"] = f"{slowest:.1f} s"


PART = Part(
    name="fleet",
    what="members of etcd, services and the network between three hosts fail while containers start and stop",
    run=run,
    short_seconds=15,
    seconds=600,
    least=3,
    missing=missing_for_etcd,
)
