"""A docker host with our plugin in it, as its user sees it: networks, containers, and what is left of them."""

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from tests.lab.commands import Finished, attempt, run
from tests.lab.engine import Engine
from tests.lab.lan import Lan
from tests.lab.places import ping_command
from tests.lab.plugin import Plugin

KERNEL_PROTOCOLS = ("kernel", "boot", "static", "ra")
"""The makers of the routes that a docker host of the lab has by itself."""
KEPT_TABLES = ("identity", "cursors", "ledger", "fleet")
"""Tables of the plugin's state whose rows outlive all networks."""
REMOTE = "remote: "
"""What engines write before an error of a plugin."""


def plugin_error(stderr: str) -> str:
    """Return the plugin's error from what the docker command has printed, without the words of the engine and of the command."""
    _, found, rest = stderr.partition(REMOTE)
    assert found, f"not an error of the plugin: {stderr}"
    return rest.splitlines()[0].removesuffix(".")  # docker run adds a full stop, and lines about its --help


class Container:
    """A running container, looked at from within its network namespace with the machine's own programs."""

    def __init__(self, engine: Engine, name: str) -> None:
        """Find the container's network namespace; after a restart of the container make another object."""
        self.engine = engine
        self.name = name
        key = str(engine.ask("GET", f"/containers/{name}/json")["NetworkSettings"]["SandboxKey"])
        # The engine mounts it where only its own processes see it; /var/run would lead out of there again.
        self._namespace = f"/proc/{engine.dockerd.pid}/root{key.replace('/var/run/', '/run/')}"

    def run(self, *command: str, timeout: float = 30) -> str:
        """Run a command of the machine's in the container's network; it must succeed."""
        return run("nsenter", f"--net={self._namespace}", "--", *command, timeout=timeout)

    def attempt(self, *command: str, timeout: float = 30) -> Finished:
        """Run a command of the machine's in the container's network, and answer how it ended."""
        return attempt("nsenter", f"--net={self._namespace}", "--", *command, timeout=timeout)

    def links(self) -> dict[str, dict[str, Any]]:
        """Return what the kernel tells of the container's links, by their names, without the loopback."""
        links = json.loads(self.run("ip", "-json", "-details", "address"))
        return {link["ifname"]: link for link in links if link["ifname"] != "lo"}

    def kind(self, nic: str = "eth0") -> dict[str, Any]:
        """Return what the kernel tells of a link as a macvlan link: mode, flags, queue ..."""
        kind: dict[str, Any] = self.links()[nic]["linkinfo"]["info_data"]
        return kind

    def mac(self, nic: str = "eth0") -> str:
        """Return the MAC address of a link."""
        return str(self.links()[nic]["address"])

    def addresses(self, nic: str = "eth0") -> set[str]:
        """Return the addresses of a link with their prefix lengths, both families, link-local ones left out."""
        told = self.links()[nic]["addr_info"]
        return {f"{each['local']}/{each['prefixlen']}" for each in told if each["scope"] == "global"}

    def routers(self) -> set[str]:
        """Return where default routes lead, both families."""
        routes = [
            *json.loads(self.run("ip", "-json", "-4", "route", "show", "default")),
            *json.loads(self.run("ip", "-json", "-6", "route", "show", "default")),
        ]
        return {route.get("gateway", route["dev"]) for route in routes}

    def ping(self, address: str, *, seconds: int = 20) -> bool:
        """Say whether `address` answers a ping; a negative answer takes all of `seconds`."""
        return self.attempt(*ping_command(address, seconds), timeout=seconds + 10).status == 0

    def remove(self) -> None:
        """Remove the container, running or not."""
        self.engine.docker("rm", "--force", self.name)


@dataclass(frozen=True)
class DockerHost:
    """An engine on the LAN and our plugin beside it."""

    engine: Engine
    plugin: Plugin

    @property
    def lan(self) -> Lan:
        """The LAN that the host is on."""
        return self.engine.lan

    @property
    def place(self) -> str:
        """The host's place on the LAN."""
        return self.engine.place

    def links(self) -> dict[str, dict[str, Any]]:
        """Return what the kernel knows of every link in the host's namespace, by the links' names."""
        return self.lan.links(self.place)

    def create(self, name: str, *words: str) -> None:
        """Create a network of our driver."""
        self.engine.docker("network", "create", f"--driver={self.plugin.name}", *words, name)

    def _links_of_networks(self) -> set[str]:
        """The plugin's own link on a parent is made in the background: perhaps only now, for an earlier network."""
        return {name for name in self.links() if not name.startswith("mvh")}

    def refusal(self, *words: str) -> str:
        """Try to create a network of our driver, which must fail and change nothing; return the user's error."""
        before = self._links_of_networks()
        words = (f"--driver={self.plugin.name}", *words)
        finished = self.engine.attempt_docker("network", "create", *words, "refused")
        assert finished.status != 0, f"was not refused: {finished}"
        assert "refused" not in self.networks()
        assert self._links_of_networks() == before
        return finished.stderr

    def networks(self) -> set[str]:
        """Return the names of all networks, the engine's own among them."""
        return {str(each["Name"]) for each in self.engine.ask("GET", "/networks")}

    def network_id(self, name: str) -> str:
        """Return a network's id."""
        return str(self.engine.ask("GET", f"/networks/{name}")["Id"])

    def start(self, name: str, *words: str, network: str = "lan") -> Container:
        """Run a container that sleeps."""
        words = ("--detach", f"--name={name}", f"--network={network}", *words)
        self.engine.docker("run", *words, "busybox", "sleep", "600")
        return Container(self.engine, name)

    def start_refusal(self, *words: str, network: str = "lan") -> str:
        """Try to run a container, which must fail; return the user's error."""
        words = ("--name=refused", f"--network={network}", *words)
        finished = self.engine.attempt_docker("run", "--detach", *words, "busybox", "sleep", "600")
        self.engine.docker("rm", "--force", "refused", check=False)
        assert finished.status != 0, f"was not refused: {finished}"
        return finished.stderr

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return the rows of networks, endpoints, links, pools and addresses; the plugin must be stopped."""
        path = self.plugin.state_dir / "state.sqlite"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            tables = [
                name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type='table'")
            ]
            return {
                name: database.execute(f"SELECT * FROM {name}").fetchall()
                for name in tables
                if name not in KEPT_TABLES
            }

    def remains(self) -> list[str]:
        """List what is left after all containers and networks were removed and the plugin was stopped.

        That are links, routes by them or by a routing protocol other than those of the lab, addresses that the
        host did not have before, permanent or proxied neighbours, rows of the state, and tracebacks in the log.
        """
        nics = {"lo", *(f"eth{number + 1}" for number in range(self.lan.nics))}
        left = [f"link {name}" for name in self.links() if name not in nics]
        left += [
            f"address {each}" for each in sorted(self._addresses() - {*self.lan.addresses.of(self.place)})
        ]
        left += [
            f"route {route}"
            for route in self.lan.routes(self.place, "table", "all")
            if route.get("dev", "lo") not in nics or route.get("protocol", "kernel") not in KERNEL_PROTOCOLS
        ]
        for kind in (("nud", "permanent"), ("proxy",)):
            left += [f"neighbour {entry}" for entry in self.lan.neighbours(self.place, *kind)]
        left += [f"row of {table}: {row}" for table, rows in self.rows().items() for row in rows]
        log = self.plugin.log()
        return left + [f"in the log: {word}" for word in ("Traceback", "Unhandled") if word in log]

    def _addresses(self) -> set[str]:
        told = [each for name, link in self.links().items() if name != "lo" for each in link["addr_info"]]
        return {f"{each['local']}/{each['prefixlen']}" for each in told if each["scope"] == "global"}
