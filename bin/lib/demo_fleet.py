"""The program behind bin/demo fleet: three Docker hosts share one range of addresses through etcd.

Each has a real Docker Engine, the plugin and a member of etcd, in a network namespace of its own.
"""

import re
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress

from bin.lib.demo import Disappointed, address_in, answer_in, demonstrate, narrate, reason_in, say, show
from tests.lab.commands import wait_until
from tests.lab.daemons import Daemon
from tests.lab.engine import Engine
from tests.lab.etcd import Cluster
from tests.lab.fleet import entries, location
from tests.lab.lan import Addresses, Lan
from tests.lab.plugin import Plugin

PICTURE = """
  Three Docker hosts on a LAN, 192.168.1.0/24. Each box is a network namespace of its own.

   +-----------+   +-----------+   +-------------------+   +-------------------+   +-------------------+
   |  gateway  |   | neighbour |   |       host        |   |       host2       |   |       host3       |
   |           |   |           |   | dockerd -> plugin |   | dockerd -> plugin |   | dockerd -> plugin |
   |           |   |           |   |              |    |   |              |    |   |              |    |
   |           |   |           |   |              v    |   |              v    |   |              v    |
   |           |   |           |   |    etcd <-> etcd <-------> etcd <-> etcd <-------> etcd           |
   |           |   |           |   |                   |   |                   |   |                   |
   |    .1     |   |    .20    |   |        .11        |   |        .12        |   |        .13        |
   +-----+-----+   +-----+-----+   +---------+---------+   +---------+---------+   +---------+---------+
         |               |                   |                       |                       |
   ======+===============+===================+=======================+=======================+======  switch
"""

SUBNET, GATEWAY, NEIGHBOUR, RANGE = "192.168.1.0/24", "192.168.1.1", "192.168.1.20", "192.168.1.128/25"
LAN = Addresses(
    gateway=(f"{GATEWAY}/24",),
    neighbour=(f"{NEIGHBOUR}/24",),
    host=("192.168.1.11/24",),
    host2=("192.168.1.12/24",),
    host3=("192.168.1.13/24",),
)
SLEEP = ("busybox", "sleep", "600")


def narrate_on(place: str) -> Callable[[str], None]:
    """Print the commands of an engine, each with the name of its box."""
    return lambda line: narrate(line.replace("$ docker ", f"$ [{place}] docker ", 1))


def build_and_tell(lan: Lan) -> None:
    """Start etcd, the engines and the plugins, and show what they do."""
    with ExitStack() as stack:
        say("etcd starts on the three hosts. It needs two of its three members.")
        cluster = stack.enter_context(Cluster(lan, lan.docker_hosts))
        show("\n".join(f"[{each.place}] {each.client_url}" for each in cluster.members))
        say("A private Docker Engine starts on each host. Yours, if you have one, is not involved.")
        engines = [
            stack.enter_context(Engine(lan, place=place, narrate=narrate_on(place)))
            for place in lan.docker_hosts
        ]
        for engine in engines:
            engine.load_busybox()

        say("The plugin starts on each host. --fleet names the members of etcd.")
        for engine in engines:
            arguments = ("--host-interface", "eth1", "--gateway", GATEWAY, "--macvlan-subnet", SUBNET)
            shared = ("--fleet", location(cluster), "--fleet-host", engine.place)
            stack.enter_context(
                Plugin(
                    lan,
                    engine.plugins_dir,
                    inside=engine,
                    arguments=(*arguments, *shared, "--docker-host", engine.docker_host),
                    narrate=narrate,
                )
            )
        tell(lan, cluster, engines)
        say("Containers and networks are removed:")
        for engine in engines:
            if names := engine.docker("ps", "--format={{.Names}}").split():
                engine.docker("rm", "--force", *names)
            engine.docker("network", "rm", "lan")


def tell(lan: Lan, cluster: Cluster, engines: list[Engine]) -> None:
    """Show a network on all hosts, and a container that moves from one to another."""
    first, second, third = engines
    say("The same network on each host. All three may use the whole upper half of the subnet.")
    for engine in engines:
        engine.docker(
            "network",
            "create",
            *("--driver", "macvlan-twisted", "--ipam-driver", "macvlan-twisted"),
            *("--subnet", SUBNET, "--gateway", GATEWAY, "--ip-range", RANGE),
            *("--opt", "parent=eth1", "lan"),
        )

    say("A container on each. Their addresses differ, because each host claims its addresses in etcd:")
    names = dict(zip(("web", "db", "cache"), engines, strict=True))
    for name, engine in names.items():
        engine.docker("run", "--detach", "--name", name, "--network", "lan", *SLEEP)
    shown = {name: link_of(engine, name) for name, engine in names.items()}
    addresses = {name: address_in(each) for name, each in shown.items()}
    if len(set(addresses.values())) != len(names):
        raise Disappointed(f"an address was given twice: {addresses}")
    wait_until(lambda: set(names) <= set(claimed(cluster)), 20, "the containers in etcd")
    narrate("$ etcdctl get --prefix /macvlan-twisted/lans/default/addresses/")
    show("\n".join(claimed(cluster)[name] for name in names))
    show(
        f"Besides, each host has claimed some more for its next containers: {len(entries(cluster))} keys in all."
    )

    say(
        "A container that asks for another host's address is refused. etcd knows the owner, so nobody needs to answer on the LAN:"
    )
    refused = third.attempt_docker(
        "run", "--rm", "--ip", addresses["web"], "--network", "lan", "busybox", "true"
    )
    if refused.status == 0:
        raise Disappointed(f"docker run --ip {addresses['web']} was not refused")
    show(reason_in(refused.stderr))

    say("The leader of etcd is killed. The two other members elect a new one, which takes about a second:")
    leader = cluster.leader
    narrate(f"$ [{leader.place}] kill -KILL {leader.pid}")
    leader.kill()
    cluster.wait_until_healthy()
    show(f"[{cluster.leader.place}] leads now")
    move(lan, first, second, addresses["web"], shown["web"])

    say("Another container starts on the third host, too:")
    third.docker("run", "--detach", "--name", "more", "--network", "lan", *SLEEP)
    show(link_of(third, "more"))


def move(lan: Lan, source: Engine, target: Engine, address: str, before: str) -> None:
    """Show that a container keeps its address and MAC on another host, and that a neighbour goes on to reach it."""
    say(
        "The neighbour pings web, and goes on while web is removed on the first host and started on the second one:"
    )
    narrate(f"$ [neighbour] ping -i 0.2 {address} &")
    command = (*lan.enter("neighbour"), "ping", "-n", "-i", "0.2", address)
    ping = Daemon("ping", command)
    ping.start()
    try:
        wait_until(lambda: answers(ping) >= 3, 20, "an answer to the ping")
        source.docker("rm", "--force", "web")
        until_removed = answers(ping)
        target.docker(*("run", "--detach", "--name", "web", "--ip", address, "--network", "lan", *SLEEP))
        after = link_of(target, "web")
        wait_until(lambda: answers(ping) >= until_removed + 3, 20, "an answer to the ping")
    finally:
        ping.kill()
    answered = [answer_in(line) for line in ping.log().splitlines() if " bytes from " in line]
    show("\n".join((*answered[:2], "...", *answered[until_removed - 1 : until_removed + 2])))
    if mac_in(before) != mac_in(after):
        raise Disappointed(f"web has another MAC than before:\n{before}\n{after}")
    show(f"web is on {target.place}, with the address and the MAC that it had on {source.place}:")
    show(after)


def answers(ping: Daemon) -> int:
    """Count the replies that a running ping has printed."""
    return ping.log().count(" bytes from ")


def claimed(cluster: Cluster) -> dict[str, str]:
    """Return the claims of running containers, as lines, by the containers' names."""
    return {
        each["container"]: f"{address}  used by container {each['container']} of {each['owner']['host']}"
        for address, each in entries(cluster).items()
        if each.get("state") == "used" and "container" in each
    }


def link_of(engine: Engine, name: str) -> str:
    """Return the output of ``ip addr`` in a container."""
    return engine.docker("exec", name, "ip", "addr", "show", "eth0")


def mac_in(shown: str) -> str:
    """Find the MAC in the output of ``ip link``."""
    found = re.search(r"link/ether (\S+)", shown)
    if found is None:
        raise Disappointed(f"the container has no MAC:\n{shown}")
    return found[1]


def main() -> int:
    """Run the demonstration and return the exit status."""
    end = (
        "On your own hosts you would run\n"
        "    twistd macvlan --fleet etcd://HOST:2379,HOST:2379,HOST:2379\n"
        "on each, and create the same network on each."
    )
    return demonstrate(PICTURE, Lan(LAN, hosts=3, narrate=narrate), build_and_tell, end)


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        sys.exit(main())
