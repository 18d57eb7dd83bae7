"""The scenarios in which the program is killed, or the kernel, disk and LAN fail."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from tests.lab.frames import arp_probe
from tests.torture.docker import Docker, Net, NetworkSpec, Refused

V4 = ("192.168.77.0/24", "192.168.77.32/27", "192.168.77.1")
V6 = ("fd77::/64", "fd77::100/120", "fd77::1")
STRANGER = "02:00:00:00:00:99"
MAC = "02:77:77:77:77:01"
QUIET = ("--conflict-detection=off", "--announce=false")
DEFAULTS = ("--host-interface=eth1", "--gateway=192.168.77.1", "--macvlan-subnet=192.168.77.0/24")


def unprepared(docker: Docker) -> None:
    """No preparation."""


@dataclass(frozen=True)
class Scenario:
    """A sequence of engine operations, undone at the end."""

    name: str
    spec: NetworkSpec
    play: Callable[[Docker, NetworkSpec], None]
    arguments: tuple[str, ...] = QUIET
    fresh_server: bool = False
    """Whether the DHCP server's leases are cleared before."""
    life: int = 1
    """The number of the process that is killed: 2 looks at the start after an earlier end."""
    prepare: Callable[[Docker], None] = unprepared
    """Prepares what the first process needs."""


def whole_life(docker: Docker, spec: NetworkSpec) -> None:
    """A network is created, a container starts and stops on it, and the network is removed."""
    net = docker.create_network(spec)
    container = docker.start(net, name="web")
    docker.stop(container)
    docker.remove_network(net)


def refused(docker: Docker, spec: NetworkSpec) -> None:
    """
    A body that is too large, a header and a path that are none, and a network that fails late, when much of it is
    made, and has to be undone.
    """
    for each in (
        b"POST /NetworkDriver.CreateNetwork HTTP/1.1\r\nContent-Length: 2097152\r\n\r\n{",
        b"POST /Plugin.Activate HTTP/1.1\r\n" + b"x" * 101 + b": 1\r\n\r\n",
        b"POST /\xff HTTP/1.1\r\nConnection: close\r\n\r\n",
    ):
        with suppress(OSError):
            docker.world.send(each)
        if docker.world.wait(0) is not None:
            docker.up()
    with suppress(Refused):
        docker.create_network(
            replace(spec, options={**spec.options, "host_address": "192.168.77.50,fd77::1"})
        )
        docker.wrong.append("the host was given the gateway's address")
    whole_life(docker, spec)


def chosen(docker: Docker, spec: NetworkSpec) -> None:
    """A container with a MAC and an address that a user chose."""
    net = docker.create_network(spec)
    docker.stop(docker.start(net, mac=MAC, address="192.168.77.77" if spec.ipam == "ours" else ""))
    docker.remove_network(net)


def two_and_again(docker: Docker, spec: NetworkSpec) -> None:
    """Two containers; one is started again under its name."""
    net = docker.create_network(spec)
    one, two = docker.start(net, name="one"), docker.start(net, name="two")
    docker.stop(one)
    again = docker.start(net, name="one")
    docker.stop(two)
    docker.stop(again)
    docker.remove_network(net)


def declined(docker: Docker, spec: NetworkSpec) -> None:
    """The address leased to a container is in use by a neighbour when it starts again."""
    net = docker.create_network(spec)
    container = docker.start(net, mac=MAC)
    docker.stop(container)
    if docker.cut:
        return  # perhaps it is forgotten, and has its MAC until that is known for sure
    lan = docker.world.lan
    lan.add_address("neighbour", container.leased)
    try:
        again = docker.start(net, mac=MAC)
        # Where nothing can be sent, or the old lease stays for want of a disk, nobody finds out.
        if again.leased == container.leased and not docker.world.was_refused:
            docker.wrong.append(f"{again.leased} was leased although the neighbour has it")
        docker.stop(again)
        docker.remove_network(net)
    finally:
        lan.remove_address("neighbour", container.leased)


def announced(docker: Docker, spec: NetworkSpec) -> None:
    """A container whose addresses are announced for some seconds, and asked for by somebody else."""
    net = docker.create_network(spec)
    container = docker.start(net, name="web")
    for _, address in container.addresses:
        docker.world.lan.send_frame("neighbour", arp_probe(STRANGER, address))
    docker.wait(1.2)
    docker.stop(container)
    docker.remove_network(net)


def _prepared(docker: Docker, spec: NetworkSpec) -> Net:
    net = docker.create_network(spec)
    docker.start(net, name="living")
    docker.forget(docker.start(net, name="forgotten in its sandbox"))
    lost = docker.start(net, name="forgotten in the host")
    docker.world.out_of_box(lost.link, lost.number)
    docker.forget(lost)
    return net


def killed_and_started(docker: Docker, spec: NetworkSpec) -> None:
    """The program is killed with a network, running containers and forgotten ones, and starts again."""
    _prepared(docker, spec)
    docker.world.kill()
    docker.up()
    docker.wait(0.05)


def stopped(docker: Docker, spec: NetworkSpec) -> None:
    """The program is stopped while a container runs."""
    _prepared(docker, spec)


HOST_ACCESS = NetworkSpec(options={"parent": "eth1", "host_access": "true"}, pools=(V4, V6))
LEASED = NetworkSpec(ipam_options={"dhcp": "true"}, pools=(("192.168.77.0/24", "", "192.168.77.1"),))
DHCP = ("--conflict-detection=off", "--announce=false", "--dhcp-timeout=5")

SCENARIOS = (
    Scenario("v4", NetworkSpec(auxiliary=("192.168.77.3", "192.168.77.4")), whole_life),
    Scenario("dual stack", NetworkSpec(pools=(V4, V6)), two_and_again),
    Scenario("docker's ipam", NetworkSpec(ipam="docker", pools=(V4, V6)), whole_life),
    Scenario("null ipam", NetworkSpec(ipam="null", pools=(("0.0.0.0/0", "", ""),)), whole_life),
    Scenario("chosen mac", NetworkSpec(), chosen),
    Scenario("host access", HOST_ACCESS, two_and_again),
    Scenario("conflicts", NetworkSpec(), announced, arguments=("--probe-timeout=0.05",)),
    Scenario("passthru", NetworkSpec(options={"parent": "eth1", "macvlan_mode": "passthru"}), whole_life),
    Scenario("internal", NetworkSpec(options={}, internal=True), whole_life),
    Scenario("vlan", NetworkSpec(options={"parent": "eth1.20"}), whole_life),
    Scenario("dhcp", LEASED, whole_life, DHCP),
    Scenario(
        "dhcp, null ipam",
        NetworkSpec(ipam="null", pools=(("0.0.0.0/0", "", ""),), options={"parent": "eth1", "dhcp": "true"}),
        whole_life,
        DHCP,
    ),
    Scenario(
        "dhcp, address in use",
        NetworkSpec(ipam="null", pools=(("0.0.0.0/0", "", ""),), options={"parent": "eth1", "dhcp": "true"}),
        declined,
        arguments=("--probe-timeout=0.05", "--announce=false", "--dhcp-timeout=5"),
        fresh_server=True,
    ),
    Scenario("refused", HOST_ACCESS, refused),
    Scenario("start", HOST_ACCESS, killed_and_started, life=2),
    Scenario("start, dhcp", LEASED, killed_and_started, DHCP, life=2),
    Scenario("stop", HOST_ACCESS, stopped),
    Scenario("stop, dhcp", LEASED, stopped, DHCP),
)
