"""NICs are unplugged, plugged in, renamed, swapped and set down, in any order, while containers start and end.

A try is some changes of two NICs, each with a network with host access, and an engine's calls in parallel. Then the NICs
get their names, or each that of the other, and everything must be in order: our links on the right NICs with addresses
and routes, containers can start and end, and nothing else exists.
"""

import json
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from random import Random
from typing import Any

from tests.lab.commands import within
from tests.lab.lan import Lan
from tests.lab.plugin import Plugin
from tests.lab.requirements import missing_for_lan
from tests.torture.part import Part, TortureRun

NAMES = {"host-eth2": "eth2", "host-eth3": "eth3"}
"""The name that each NIC should have, by its port on the switch."""
NETWORKS = {"eth2": ("a" * 64, 40), "eth3": ("b" * 64, 60)}
SETTLED = 60.0
"""Seconds within which everything must be in order. Usually it takes 0.2 s."""
DEEDS_AT_ONCE = 8


class NicHost:
    """A docker host with two NICs and the service on it."""

    def __init__(self, lan: Lan, plugin: Plugin) -> None:
        """Make a network on each NIC."""
        self.lan = lan
        self.plugin = plugin
        self.nics = dict(NAMES)
        """The current name of each NIC by its port; empty while it is unplugged."""
        self.names = dict(NAMES)
        """The name that each NIC should have in the end, by its port."""
        self.number = 0
        for nic, (network, number) in NETWORKS.items():
            data = {"AddressSpace": "LocalDefault", "Pool": "192.168.77.0/24", "Gateway": "192.168.77.1/24"}
            options = {"parent": nic, "host_access": "true", "host_address": f"192.168.77.{number + 160}"}
            generic = {"com.docker.network.generic": options}
            body = {"NetworkID": network, "Options": generic, "IPv4Data": [data], "IPv6Data": []}
            answer = plugin.call("NetworkDriver.CreateNetwork", body)
            if "Err" in answer:
                raise RuntimeError(f"the network on {nic} was not made: {answer['Err']}")

    def links(self) -> dict[str, dict[str, Any]]:
        """Return the host's links by name."""
        text = json.loads(self.lan.run_in("host", "ip", "-json", "address"))
        return {each["ifname"]: each for each in text if each}

    # Deeds.

    def ip(self, *words: str) -> None:
        """Change something on the host; it may fail if nothing is to change."""
        self.lan.attempt_in("host", "ip", *words)

    def take_out(self, port: str) -> None:
        """Unplug a NIC."""
        if self.nics[port]:
            self.ip("link", "delete", self.nics[port])
            self.nics[port] = ""

    def put_in(self, port: str) -> None:
        """Plug a NIC in under its name, or under a spare one if that is in use."""
        if not self.nics[port]:
            name = next(
                each for each in (self.names[port], "spare0", "spare1") if each not in self.nics.values()
            )
            far = ("peer", "name", port, "netns", self.lan.namespace("switch"))
            self.ip("link", "add", name, "type", "veth", *far)
            self.lan.run_in("switch", "ip", "link", "set", port, "master", "br0", "up")
            self.ip("link", "set", name, "up")
            self.nics[port] = name

    def rename(self, port: str, name: str) -> None:
        """Rename a NIC, if the name is free."""
        if self.nics[port] and name not in self.nics.values():
            self.ip("link", "set", self.nics[port], "name", name)
            self.nics[port] = name

    def swap(self, _port: str) -> None:
        """Swap the names of both NICs."""
        one, other = self.nics
        first, second = self.nics[one], self.nics[other]
        if first and second:
            words = (
                f"link set {first} name x",
                f"link set {second} name {first}",
                f"link set x name {second}",
            )
            self.lan.run_in("host", "sh", "-c", f"printf '%s\\n' {' '.join(map(repr, words))} | ip -batch -")
            self.nics[one], self.nics[other] = second, first

    def down_and_up(self, port: str) -> None:
        """Set a NIC down and up."""
        for state in ("down", "up"):
            if self.nics[port]:
                self.ip("link", "set", self.nics[port], state)

    def remove_ours(self, _port: str) -> None:
        """Delete our host links."""
        for name in [each for each in self.links() if each.startswith("mvh")]:
            self.ip("link", "delete", name)

    def restart(self, _port: str) -> None:
        """Kill and start the plugin."""
        self.plugin.kill()
        self.plugin.start()

    def put_right(self, random: Random) -> None:
        """Give each NIC its name, or from now on that of the other."""
        if random.random() < 0.5:
            one, other = self.names
            self.names = {one: self.names[other], other: self.names[one]}
        for port in self.nics:
            self.rename(port, f"park-{NAMES[port]}")
        for port, name in self.names.items():
            self.rename(port, name)
        for port in self.nics:
            self.put_in(port)

    # Calls.

    def start_container(self, nic: str) -> str:
        """Make an engine's calls for a start; return the error."""
        self.number += 1
        network, address = NETWORKS[nic]
        about = {"NetworkID": network, "EndpointID": f"{self.number:032x}{address:032x}"}
        interface = {"Address": f"192.168.77.{address}/24", "AddressIPv6": "", "MacAddress": ""}
        answer = self.plugin.call(
            "NetworkDriver.CreateEndpoint", {**about, "Interface": interface, "Options": {}}
        )
        if "Err" not in answer:
            answer = self.plugin.call(
                "NetworkDriver.Join", {**about, "SandboxKey": "/var/run/docker/netns/1"}
            )
        self.last = about
        return str(answer.get("Err", ""))

    def end_container(self) -> str:
        """End the one that was started last."""
        self.plugin.call("NetworkDriver.Leave", self.last)
        return str(self.plugin.call("NetworkDriver.DeleteEndpoint", self.last).get("Err", ""))

    def lives(self, number: int, nics: list[str], complaints: list[str]) -> None:
        """Start and end containers; collect errors of the ends."""
        for nic in nics[:number]:
            try:
                self.start_container(nic)
                complaint = self.end_container()
            except OSError as error:
                complaint = f"a call was not answered: {error}"
            if complaint:
                complaints.append(complaint)

    # What has to be.

    def disorder(self) -> str:
        """Return what is wrong; empty if nothing is."""
        links = self.links()
        ours = {each.get("link"): each for name, each in links.items() if name.startswith("mvh")}
        for nic, (_, number) in NETWORKS.items():
            if nic not in ours:
                return f"there is no link of ours on {nic}"
            if all(each.get("local") != f"192.168.77.{number + 160}" for each in ours[nic]["addr_info"]):
                return f"our link on {nic} has not the host's address"
        extra = set(links) - {"lo", "eth1", *NETWORKS} - {each["ifname"] for each in ours.values()}
        if extra or len(ours) != len(NETWORKS):
            return f"there are more links than there should be: {sorted(links)}"
        return ""

    def settled(self) -> str:
        """Wait until nothing is wrong; return what still is."""
        within(SETTLED, lambda: not self.disorder())
        return self.disorder()

    def left_over(self) -> set[str]:
        """Return the links that remain once retired links had time to go."""

        def extra() -> set[str]:
            return set(self.links()) - {"lo", "eth1", *NETWORKS}

        within(SETTLED, lambda: not extra())
        return extra()

    def usable(self) -> str:
        """Start and end a container on each NIC."""
        for nic, (_, number) in NETWORKS.items():
            if complaint := self.start_container(nic):
                return f"a container on {nic} does not start: {complaint}"
            routes = self.lan.run_in("host", "ip", "route", "show", "proto", "142")
            if f"192.168.77.{number} dev mvh" not in routes:
                return f"there is no route to the container on {nic}: {routes!r}"
            if complaint := self.end_container():
                return f"a container on {nic} does not end: {complaint}"
        return ""


def one_try(torture: TortureRun, host: NicHost) -> None:
    """Run random changes and container lives in parallel, and judge the outcome."""
    random = torture.random
    deeds: list[Callable[[str], None]] = [
        host.take_out,
        host.put_in,
        host.put_in,
        lambda port: host.rename(port, "spare0"),
        lambda port: host.rename(port, host.names[port]),
        host.swap,
        host.down_and_up,
        host.remove_ours,
        lambda _: time.sleep(random.choice((0.01, 0.1, 0.3))),
    ]
    drawn = [
        (random.choice(deeds), random.choice(list(NAMES))) for _ in range(random.randint(1, DEEDS_AT_ONCE))
    ]
    is_killed = random.random() < 0.2
    complaints: list[str] = []
    lives = [random.choice(list(NETWORKS)) for _ in range(4)]
    living = threading.Thread(target=host.lives, args=(random.randint(0, 4), lives, complaints))
    if not is_killed:
        living.start()
    for deed, port in drawn:
        deed(port)
    if is_killed:
        host.restart("")
        living.start()
    living.join()
    host.put_right(random)
    began = time.monotonic()
    finding = host.settled() or host.usable() or host.settled()
    slowest = max(
        float(torture.tally.figures.get("slowest to settle", "0 s").split()[0]), time.monotonic() - began
    )
    torture.tally.figures["slowest to settle"] = f"{slowest:.1f} s"
    text = ", ".join(f"{getattr(deed, '__name__', 'deed')} {port}" for deed, port in drawn)
    log = host.plugin.log()
    if complaints:
        torture.tally.lose(f"{complaints} ({text})")
    elif "Traceback" in log:
        torture.tally.lose(f"{log[log.index('Traceback') :][:2000]} ({text})")
    elif finding.startswith("there are more links"):
        torture.tally.leak(f"{finding} ({text})")
    elif finding:
        torture.tally.lose(f"{finding} ({text})\n{log[-3000:]}")
    else:
        torture.tally.survive()


def run(torture: TortureRun) -> None:
    """Try on one host after the other; a host that has seen a failure is not used again."""
    while not torture.is_over:
        with ExitStack() as stack:
            lan = stack.enter_context(Lan(nics=3))
            plugin = stack.enter_context(Plugin(lan))
            host = NicHost(lan, plugin)
            for _ in range(50):
                if torture.is_over or torture.tally.findings:
                    break
                one_try(torture, host)
                torture.progress()
            for network, _ in NETWORKS.values():
                plugin.call("NetworkDriver.DeleteNetwork", {"NetworkID": network})
            if left := host.left_over():
                torture.tally.leak(f"after the networks' end: {sorted(left)}")
        if len(torture.tally.findings) >= 5:
            return


PART = Part(
    name="parents",
    what="NICs vanish, return and are renamed while containers start and stop",
    run=run,
    short_seconds=30,
    seconds=300,
    least=3,
    missing=missing_for_lan,
)
