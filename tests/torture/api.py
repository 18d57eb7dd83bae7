"""An engine's API on a socket, which shows what a :class:`tests.torture.docker.Docker` knows."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from queue import Empty, SimpleQueue
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from tests.torture.docker import Container, Docker, Net, NetworkSpec, Refused
from tests.torture.world import Cut

OURS = "macvlan-twisted"
IPAM = {"ours": OURS, "docker": "default", "null": "null"}
VERSIONS = {20: "1.41", 29: "1.52"}
PATIENCE = 100.0
"""Seconds that a request waits for the thread that runs the scenario."""


@dataclass
class Creation:
    """A network that the program asks for, and that the scenario's thread creates."""

    description: dict[str, Any]
    life: int
    answered: threading.Event = field(default_factory=threading.Event)
    status: int = 503
    answer: dict[str, Any] = field(default_factory=lambda: {"message": "the engine is busy"})


class Api:
    """The replies. Requests come on threads of their own, and only read."""

    def __init__(self, docker: Docker) -> None:
        """Show what `docker` knows."""
        self.docker = docker
        self.sandbox_keys: dict[str, str] = {}
        """By endpoint; others are where containers have theirs anyway."""
        self._creations: SimpleQueue[Creation] = SimpleQueue()

    @contextmanager
    def listening(self, path: Path) -> Iterator[None]:
        """Answer within the block."""
        server = _Server(str(path), self)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join(5)

    # Questions.

    def get(self, target: str) -> tuple[int, Any]:
        """Return status and body for a GET request."""
        split = urlsplit(target)
        match split.path.strip("/").split("/"):
            case ["version"]:
                return 200, {"ApiVersion": VERSIONS[self.docker.version]}
            case ["networks"]:
                filters = json.loads(parse_qs(split.query).get("filters", ["{}"])[0])
                listed = [self._network(each) for each in self._networks()]
                none = {"Id": "f" * 64, "Name": "none", "Driver": "null", "IPAM": {"Driver": "default"}}
                return 200, [
                    each for each in (none, *listed) if each["Name"] in filters.get("name", [each["Name"]])
                ]
            case ["networks", key]:
                found = next((each for each in self._networks() if each.id == key), None)
                if found is None:
                    return 404, {"message": f"network {key} not found"}
                containers = {
                    each.id: self._on_network(each) for each in self._containers() if each.net is found
                }
                return 200, {**self._network(found), "Containers": containers}
            case ["containers", "json"]:
                return 200, [{"Id": each.id} for each in self._containers()]
            case ["containers", key, "json"]:
                container = next((each for each in self._containers() if each.id == key), None)
                if container is None:
                    return 404, {"message": f"No such container: {key}"}
                return 200, self._container(container)
        return 404, {"message": "page not found"}

    def _networks(self) -> list[Net]:
        return list(self.docker.view.networks.values())

    def _containers(self) -> list[Container]:
        return list(self.docker.view.containers.values())

    def _network(self, net: Net) -> dict[str, Any]:
        configs = []
        for pool, part, gateway in net.spec.pools:
            config = {"Subnet": pool, "IPRange": part, "Gateway": gateway}
            configs.append({name: value for name, value in config.items() if value})
        if net.spec.auxiliary:
            configs[0]["AuxiliaryAddresses"] = {  # type: ignore[assignment]
                f"aux{number}": each for number, each in enumerate(net.spec.auxiliary)
            }
        ipam = {"Driver": IPAM[net.spec.ipam], "Options": net.spec.ipam_options, "Config": configs}
        return {
            "Id": net.id,
            "Name": net.name,
            "Driver": OURS,
            "Internal": net.spec.internal,
            "Options": net.spec.options,
            "IPAM": ipam,
        }

    def _on_network(self, container: Container) -> dict[str, str]:
        lengths = {":" in pool: pool.partition("/")[2] for pool, _, _ in container.net.spec.pools}
        cidrs = {":" in each: f"{each}/{lengths[':' in each]}" for _, each in container.addresses}
        return {
            "Name": f"box{container.number}",
            "EndpointID": container.id,
            "MacAddress": container.mac,
            "IPv4Address": cidrs.get(False, container.leased),
            "IPv6Address": cidrs.get(True, ""),
        }

    def _container(self, container: Container) -> dict[str, Any]:
        key = self.sandbox_keys.get(container.id, self.docker.world.box_path(container.number))
        on = {"NetworkID": container.net.id, "EndpointID": container.id}
        networks = {container.net.name: on}
        return {"Id": container.id, "State": {}, "NetworkSettings": {"SandboxKey": key, "Networks": networks}}

    # The one deed.

    def post(self, target: str, description: dict[str, Any]) -> tuple[int, Any]:
        """Hand a network to the scenario's thread, and wait until it is created."""
        if urlsplit(target).path != "/networks/create":
            return 404, {"message": "page not found"}
        creation = Creation(description, self.docker.world.life)
        self._creations.put(creation)
        creation.answered.wait(PATIENCE)
        return creation.status, creation.answer

    def create_until(self, name: str) -> bool:
        """Create what this life of the program asks for, until it says that network `name` is there.

        :return: whether the program lives, or another one by now, which says so, too.
        """
        world = self.docker.world
        life = world.life
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            log = world.log().rpartition("driver initialised")[2]
            if f"network {name}: created in" in log or f"network {name}: exists already" in log:
                return True
            with suppress(Empty):
                creation = self._creations.get(timeout=0.02)
                if creation.life == world.life:
                    self._create(creation)
            if world.life != life:
                return world.wait(0) is None
            if world.wait(0) is not None:
                return False
        raise RuntimeError(f"network {name} is not created:\n{world.log()}")

    def _create(self, creation: Creation) -> None:
        said = creation.description
        configs = said["IPAM"]["Config"]
        spec = NetworkSpec(
            options=said["Options"],
            pools=tuple(
                (each["Subnet"], each.get("IPRange", ""), each.get("Gateway", "")) for each in configs
            ),
            ipam_options=said["IPAM"].get("Options", {}),
        )
        try:
            net = self.docker.create_network(spec, said["Name"])
            creation.status, creation.answer = 201, {"Id": net.id}
        except (Cut, Refused) as error:
            creation.status, creation.answer = 500, {"message": str(error)}
        finally:
            creation.answered.set()


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, path: str, api: Api) -> None:
        self.api = api
        super().__init__(path, _Talk)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors: the program may be killed in the middle of a request."""


class _Talk(BaseHTTPRequestHandler):
    server: _Server
    protocol_version: ClassVar[str] = "HTTP/1.1"  # type: ignore[misc]

    def do_GET(self) -> None:
        self._answer(*self.server.api.get(self.path))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(*self.server.api.post(self.path, json.loads(body)))

    def _answer(self, status: int, body: Any) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(raw)
        self.close_connection = True

    def address_string(self) -> str:
        return "the program"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing."""
