"""
A blocking client of Docker Engine's API, and a snapshot of all networks with their containers.

For ``--recover``, before the service listens, and for the administrator's commands. A plugin call must never use it.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

from attrs import field, frozen

from ..addresses import IPAddress, IPInterface, IPNetwork, parse_address, parse_interface, parse_mac
from .client import parsing_answer
from .interfaces import EngineError, EngineUnavailable

# Remedy of these errors: start Docker, or set --docker-host to the engine's socket.

T = TypeVar("T")

TIMEOUT = 15.0
"""Seconds for all requests of one inspection."""
_FIRST_NOT_PICKING_GATEWAYS = (1, 48)
"""API version of Docker Engine 28. Earlier engines pick a gateway for a subnet that the user named none for."""


@frozen
class FoundSubnet:
    pool: IPNetwork
    ip_range: IPNetwork | None = None
    gateway: IPAddress | None = None
    auxiliary: Mapping[str, IPAddress] = field(factory=dict)


@frozen
class FoundEndpoint:
    """The endpoint of a running container; a stopped one has none."""

    endpoint_id: str
    container: str
    """The container's name."""
    mac: str | None = None
    address: IPInterface | None = None
    address_v6: IPInterface | None = None
    gateway: IPAddress | None = None
    gateway_v6: IPAddress | None = None
    sandbox: str = ""
    process: int | None = None


@frozen
class FoundNetwork:
    network_id: str
    name: str
    driver: str
    options: Mapping[str, str]
    internal: bool
    ipam_driver: str
    ipam_options: Mapping[str, str]
    subnets: tuple[FoundSubnet, ...]
    endpoints: tuple[FoundEndpoint, ...] = ()


@frozen
class Inspection:
    networks: tuple[FoundNetwork, ...]
    picks_gateways: bool
    """Whether this engine picks a gateway for a subnet without one, and does not show it."""


class BlockingEngineClient:
    """
    An engine behind a UNIX socket.

    :param docker_host: as for the docker command.
    :param timeout: seconds for all requests together, from now on.
    """

    def __init__(self, docker_host: str, timeout: float = TIMEOUT) -> None:
        self._path = docker_host.removeprefix("unix://")
        self._deadline = time.monotonic() + timeout

    def get(self, path: str) -> Any:
        """
        :raises EngineUnavailable: no engine answers in time.
        :raises EngineError: the engine answered with an error.
        """
        connection = _UnixConnection(self._path, self._deadline)
        try:
            connection.request("GET", path, headers={"Host": "docker"})
            response = connection.getresponse()
            answer = json.loads(response.read())
        except TimeoutError as error:
            raise EngineUnavailable("the engine did not answer in time") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error) or "the engine closed the connection"
            raise EngineUnavailable(reason) from error
        finally:
            connection.close()
        if response.status >= 400:
            message = answer.get("message") if isinstance(answer, dict) else None
            # Remedy: see the engine's log.
            raise EngineError(message or f"the engine answered with status {response.status}")
        return answer


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, deadline: float) -> None:
        super().__init__("docker")
        self._path = path
        self._deadline = deadline

    def connect(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(left)
        self.sock.connect(self._path)


def inspect_networks(engine: BlockingEngineClient, driver: str) -> Inspection:
    """
    The networks that use *driver* as network or IPAM driver, each with its running containers.

    :raises EngineUnavailable: no engine answers in time.
    :raises EngineError: the engine answered with an error.
    """
    with parsing_answer("its networks"):
        return _inspect(engine, driver)


def _inspect(engine: BlockingEngineClient, driver: str) -> Inspection:
    version = _parsed(engine.get("/version"), "ApiVersion", _api_version)
    containers: dict[str, Any] = {}
    found = []
    for listed in engine.get("/networks"):
        ipam = listed.get("IPAM") or {}
        if listed.get("ConfigOnly") or driver not in (listed.get("Driver"), ipam.get("Driver")):
            continue
        try:
            network = engine.get(f"/networks/{quote(str(listed['Id']), safe='')}")
        except EngineError:
            continue  # removed meanwhile
        for container_id in network.get("Containers") or {}:
            if container_id not in containers:
                try:
                    containers[container_id] = engine.get(f"/containers/{quote(container_id, safe='')}/json")
                except EngineError:
                    containers[container_id] = {}
        found.append(found_network(network, containers))
    return Inspection(tuple(found), version is not None and version < _FIRST_NOT_PICKING_GATEWAYS)


def found_network(network: Mapping[str, Any], containers: Mapping[str, Any]) -> FoundNetwork:
    """
    :param network: the answer to ``GET /networks/ID``.
    :param containers: the answers to ``GET /containers/ID/json`` for the containers on it, by id.
    """
    ipam = network.get("IPAM") or {}
    return FoundNetwork(
        network_id=str(network["Id"]),
        name=str(network.get("Name", "")),
        driver=str(network.get("Driver", "")),
        options=_strings(network.get("Options")),
        internal=bool(network.get("Internal")),
        ipam_driver=str(ipam.get("Driver", "")),
        ipam_options=_strings(ipam.get("Options")),
        subnets=tuple(
            subnet for each in ipam.get("Config") or () if (subnet := _found_subnet(each)) is not None
        ),
        endpoints=tuple(
            _found_endpoint(str(network["Id"]), each, containers.get(container_id) or {})
            for container_id, each in (network.get("Containers") or {}).items()
            if each.get("EndpointID")
        ),
    )


def _found_subnet(config: Mapping[str, Any]) -> FoundSubnet | None:
    pool = _parsed(config, "Subnet", _any_network)
    if pool is None:
        return None
    auxiliary = config.get("AuxiliaryAddresses") or {}
    return FoundSubnet(
        pool=pool,
        ip_range=_parsed(config, "IPRange", _any_network),
        gateway=_parsed(config, "Gateway", _without_prefix),
        auxiliary={
            name: address for name in auxiliary if (address := _parsed(auxiliary, name, _without_prefix))
        },
    )


def _found_endpoint(network_id: str, each: Mapping[str, Any], container: Mapping[str, Any]) -> FoundEndpoint:
    network_settings = container.get("NetworkSettings") or {}
    own: Mapping[str, Any] = next(
        (
            one
            for one in (network_settings.get("Networks") or {}).values()
            if one.get("NetworkID") == network_id
        ),
        {},
    )
    process = (container.get("State") or {}).get("Pid")
    return FoundEndpoint(
        endpoint_id=str(each["EndpointID"]),
        container=str(each.get("Name", "")),
        mac=_parsed(each, "MacAddress", parse_mac),
        address=_parsed(each, "IPv4Address", parse_interface),
        address_v6=_parsed(each, "IPv6Address", parse_interface),
        gateway=_parsed(own, "Gateway", parse_address),
        gateway_v6=_parsed(own, "IPv6Gateway", parse_address),
        sandbox=str(network_settings.get("SandboxKey") or ""),
        process=process if isinstance(process, int) and process > 0 else None,
    )


def _api_version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _any_network(text: str) -> IPNetwork:
    """Engines before 28 show a subnet as the user wrote it, with host bits."""
    return parse_interface(text).network


def _without_prefix(text: str) -> IPAddress:
    return parse_interface(text).ip if "/" in text else parse_address(text)


def _strings(members: Any) -> dict[str, str]:
    return {str(key): str(value) for key, value in (members or {}).items()}


def _parsed(members: Mapping[str, Any], name: str, parse: Callable[[str], T]) -> T | None:
    """A member, parsed; ``None`` if it is absent or unreadable, for what engines show varies with their version."""
    text = members.get(name)
    if not isinstance(text, str) or not text:
        return None
    try:
        return parse(text)
    except ValueError:
        return None
