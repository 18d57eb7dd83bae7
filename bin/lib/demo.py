"""The program behind bin/demo: containers on a throw-away LAN, with a real Docker Engine and the plugin.

:mod:`tests.lab` creates everything in network namespaces of its own, and removes it at the end, also after Ctrl-C. The
program needs the standard library only. The plugin runs with the same Python.
"""

import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from tests.lab.commands import CommandFailed, TookTooLong, run
from tests.lab.engine import Engine
from tests.lab.lan import Addresses, Lan
from tests.lab.plugin import Plugin

PICTURE = """
  The LAN of this demonstration, 192.168.1.0/24. Each box is a network namespace of its own.

   +--------------+    +--------------+    +------------------------------------------------+
   |   gateway    |    |  neighbour   |    |              the Docker host                   |
   |              |    |              |    |   dockerd --- socket ---> macvlan-twisted      |
   |              |    |              |    |                                |               |
   |              |    |              |    |                                v  netlink      |
   |              |    |              |    |   container "web"   container "db"             |
   |              |    |              |    |        eth0              eth0     (macvlan)    |
   | 192.168.1.1  |    | 192.168.1.20 |    |          \\                |                    |
   |     eth1     |    |     eth1     |    |           +---- eth1 -----+   192.168.1.10     |
   +------+-------+    +------+-------+    +------------------+-----------------------------+
          |                   |                               |
   =======+===================+===============================+=======  switch
"""

SUBNET, GATEWAY, NEIGHBOUR, RANGE = "192.168.1.0/24", "192.168.1.1", "192.168.1.20", "192.168.1.128/25"
HOST, SQUATTER = "192.168.1.10", "192.168.1.130"
LAN = Addresses(gateway=(f"{GATEWAY}/24",), neighbour=(f"{NEIGHBOUR}/24",), host=(f"{HOST}/24",))
OWN_WORDS = re.compile(r"\[macvlan_twisted[^]]*#(?!debug)(?!.*Starting factory)")


class Disappointed(Exception):
    """Something is not as the text says."""


def say(text: str) -> None:
    """Print text for the reader, set off from the commands."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def show(text: str) -> None:
    """Print the output of a command, indented."""
    for line in text.rstrip().splitlines():
        print(f"    {line}", flush=True)


def narrate(line: str) -> None:
    """Print a command."""
    print(f"  {line}", flush=True)


def build_and_tell(lan: Lan) -> None:
    """Show engine and plugin on a LAN."""
    say("A private Docker Engine starts on the Docker host. Yours, if you have one, is not involved.")
    with Engine(lan, narrate=narrate) as engine:
        show(f"Docker Engine {engine.docker('version', '--format={{.Server.Version}}').strip()} answers")
        engine.load_busybox()

        say("The plugin starts beside it. Docker finds it by its socket in the plugin directory.")
        defaults = ("--host-interface", "eth1", "--gateway", GATEWAY, "--macvlan-subnet", SUBNET)
        with Plugin(lan, engine.plugins_dir, arguments=defaults, narrate=narrate) as plugin:
            show_containers(lan, engine)
            say("The plugin's log:")
            show("\n".join(line for line in plugin.log().splitlines() if OWN_WORDS.search(line)))
            say("The plugin and the engine stop. Exit status 0 means that the plugin stopped cleanly:")
            narrate(f"$ kill {plugin.service.pid}")
            plugin.stop()
            show("exit status 0")


def show_containers(lan: Lan, engine: Engine) -> None:
    """Show a network, two containers, and which of them reach each other."""
    say(
        f"The neighbour also uses an address of the range from which containers will get theirs:\n{SQUATTER}."
    )
    lan.run_in("neighbour", "ip", "address", "add", f"{SQUATTER}/24", "dev", "eth1")

    say(
        "Now a network. Its parent is the NIC on the LAN. Containers get addresses from the upper half of the\n"
        "subnet; the other machines have the lower half. The host will reach the containers, too."
    )
    engine.docker(
        "network",
        "create",
        *("--driver", "macvlan-twisted", "--ipam-driver", "macvlan-twisted"),
        *("--subnet", SUBNET, "--gateway", GATEWAY, "--ip-range", RANGE),
        *("--opt", "parent=eth1", "--opt", "host_access=true", "lan"),
    )

    say("Two containers on it:")
    addresses = {}
    for name in ("web", "db"):
        engine.docker("run", "--detach", "--name", name, "--network", "lan", "busybox", "sleep", "600")
        shown = engine.docker("exec", name, "ip", "-4", "addr", "show", "eth0")
        show(shown)
        show(engine.docker("exec", name, "ip", "route"))
        addresses[name] = address_in(shown)
    if SQUATTER in addresses.values():
        raise Disappointed(f"a container was given {SQUATTER}, which the neighbour has")
    show(f"{SQUATTER} was skipped: the neighbour answered the plugin's probe.")

    say("A container that asks for this address is refused:")
    refused = engine.attempt_docker("run", "--rm", "--ip", SQUATTER, "--network", "lan", "busybox", "true")
    if refused.status == 0:
        raise Disappointed(f"docker run --ip {SQUATTER} was not refused")
    show(reason_in(refused.stderr))

    say("web reaches db, the gateway and the neighbour:")
    for address in (addresses["db"], GATEWAY, NEIGHBOUR):
        pinged = engine.docker("exec", "web", "ping", "-c", "1", "-w", "5", address)
        show(answer_in(pinged))

    say("The neighbour reaches db at its own address. No port is published, no address is translated:")
    pinged = lan.run_in("neighbour", "ping", "-n", "-c", "1", "-w", "5", addresses["db"])
    show(answer_in(pinged))

    say(
        "The Docker host and its containers reach each other, which macvlan alone does not allow. The host has a\n"
        "macvlan link of the plugin and a route for each container. From the host, and from a container:"
    )
    show(lan.run_in("host", "ip", "route", "show", "proto", "142"))
    show(answer_in(lan.run_in("host", "ping", "-n", "-c", "1", "-w", "5", addresses["web"])))
    show(answer_in(engine.docker("exec", "web", "ping", "-c", "1", "-w", "5", HOST)))

    say("What the neighbour receives: a frame with the container's own MAC and IP address.")
    with lan.capture("neighbour", f"icmp and src host {addresses['web']}", seconds=60) as capture:
        engine.docker("exec", "web", "ping", "-c", "1", "-w", "5", NEIGHBOUR)
        frames = capture.lines()
    if not frames:
        raise Disappointed("no frame of the container was seen on the LAN")
    show("\n".join(frames))
    show("The MAC is 7a:42 and the four bytes of the IPv4 address.")

    say("Containers and network are removed. Only the host's own NIC is left:")
    engine.docker("rm", "--force", "web", "db")
    engine.docker("network", "rm", "lan")
    show(lan.run_in("host", "ip", "-brief", "link"))
    left = set(lan.host_links()) - {"lo", "eth1"}
    if left:
        raise Disappointed(f"links were left behind on the docker host: {', '.join(sorted(left))}")


def address_in(shown: str) -> str:
    """Find the IPv4 address in the output of ``ip addr``."""
    found = re.search(r"inet ([0-9.]+)/", shown)
    if found is None:
        raise Disappointed(f"the container has no IPv4 address:\n{shown}")
    return found[1]


def reason_in(output: str) -> str:
    """Find the plugin's reason in the error of ``docker run``."""
    found = re.search(r"remote: (.*)", output)
    if found is None:
        raise Disappointed(f"the engine did not print the plugin's reason:\n{output}")
    return found[1]


def answer_in(pinged: str) -> str:
    """Find the line of a reply in the output of ``ping``."""
    found = re.search(r".* bytes from .*", pinged)
    if found is None:
        raise Disappointed(f"the ping was not answered:\n{pinged}")
    return found[0]


def interrupted(_signal: int, _frame: FrameType | None) -> None:
    """End the program, and ignore further signals during the cleanup."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def demonstrate(picture: str, lan: Lan, tell: Callable[[Lan], None], end: str) -> int:
    """Build the LAN, have *tell* show its story there, and return the exit status; *end* is what a user would do."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    began = time.monotonic()
    print(picture)
    say("The LAN is built. Lines that begin with $ are commands; [host] names the box in which one runs.")
    try:
        with lan:
            tell(lan)
            say("The LAN is removed:")
        left = [name for name in run("ip", "netns", "list").split() if name.startswith(lan.tag)]
        if left:
            raise Disappointed(f"network namespaces were left behind: {', '.join(left)}")
        show(f"no namespace, link, process or file of {lan.tag} is left")
    except KeyboardInterrupt:
        say("Interrupted. Everything was removed again.")
        return 130
    except (CommandFailed, TookTooLong, Disappointed, RuntimeError, OSError) as error:
        say("The demonstration failed. Everything was removed again.")
        show(str(error))
        return 1
    say(f"Done in {time.monotonic() - began:.0f} seconds. {end}")
    return 0


def main() -> int:
    """Run the demonstration and return the exit status."""
    end = (
        f"On your own LAN you would run\n"
        f"    twistd macvlan\n"
        f"    docker network create -d macvlan-twisted --ipam-driver macvlan-twisted \\\n"
        f"        --subnet {SUBNET} --gateway {GATEWAY} --ip-range {RANGE} \\\n"
        f"        -o parent=eth1 lan\n"
        f"    docker run -d --name web --network lan nginx"
    )
    return demonstrate(PICTURE, Lan(LAN, narrate=narrate), build_and_tell, end)


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        sys.exit(main())
