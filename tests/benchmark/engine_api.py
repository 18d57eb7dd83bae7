"""Docker Engine's API over its socket: a process of the docker client alone would take longer than what is measured."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from tests.lab.unix_http import UnixConnection


class Refused(Exception):
    """The engine did not do it."""


class Api:
    """One connection, kept."""

    def __init__(self, path: Path) -> None:
        """Prepare a connection."""
        self._path = path
        self._connection = UnixConnection(path, 120)

    def close(self) -> None:
        """Close it."""
        self._connection.close()

    def ask(self, method: str, target: str, body: Any = None) -> Any:
        """Make one request, and return the reply."""
        sent = b"" if body is None else json.dumps(body).encode()
        self._connection.request(method, target, sent, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        received = response.read()
        if response.status >= 400:
            raise Refused(f"{method} {target}: {response.status} {received.decode()}")
        return json.loads(received) if received.strip() else None

    def timed(self, method: str, target: str, body: Any = None) -> float:
        """Make one request, and return how many seconds it took."""
        began = time.perf_counter()
        self.ask(method, target, body)
        return time.perf_counter() - began

    def create_network(
        self,
        name: str,
        driver: str,
        subnet: str,
        options: dict[str, str],
        ipam: str = "default",
        ipam_options: dict[str, str] | None = None,
    ) -> None:
        """Create a network."""
        config = [{"Subnet": subnet}]
        self.ask(
            "POST",
            "/networks/create",
            {
                "Name": name,
                "Driver": driver,
                "Options": options,
                "IPAM": {"Driver": ipam, "Config": config, "Options": ipam_options or {}},
            },
        )

    def create_container(self, name: str, network: str) -> str:
        """Create a container that sleeps, on a network, and return its id."""
        body = {
            "Image": "busybox",
            "Cmd": ["sleep", "600"],
            "StopSignal": "SIGKILL",
            "HostConfig": {"NetworkMode": network},
        }
        return str(self.ask("POST", f"/containers/create?name={name}", body)["Id"])

    def start(self, name: str) -> float:
        """Start a container."""
        return self.timed("POST", f"/containers/{name}/start")

    def remove(self, name: str) -> float:
        """Remove a container, running or not."""
        return self.timed("DELETE", f"/containers/{name}?force=1")

    def connect(self, name: str, network: str) -> float:
        """Connect a running container to a network."""
        return self.timed("POST", f"/networks/{network}/connect", {"Container": name})

    def disconnect(self, name: str, network: str) -> float:
        """Disconnect it again."""
        return self.timed("POST", f"/networks/{network}/disconnect", {"Container": name})


@contextmanager
def api_of(path: Path) -> Iterator[Api]:
    """A connection to the engine."""
    api = Api(path)
    try:
        yield api
    finally:
        api.close()


def all_at_once(path: Path, names: list[str], do: Callable[[Api, str], object]) -> float:
    """Do something with many containers, each over a connection of its own; return how long all of it took."""
    failed: list[BaseException] = []

    def one(name: str) -> None:
        try:
            with api_of(path) as api:
                do(api, name)
        except BaseException as error:
            failed.append(error)

    threads = [Thread(target=one, args=(name,)) for name in names]
    began = time.perf_counter()
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    if failed:
        raise failed[0]
    return time.perf_counter() - began
