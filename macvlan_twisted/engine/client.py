"""The client of Docker Engine's API for background work, over the engine's UNIX socket."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from ipaddress import ip_network
from typing import Any, cast
from urllib.parse import quote, urlencode

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, ensureDeferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Cooperator
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, FileBodyProducer, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from ..addresses import parse_address
from ..failpoints import Failpoint
from ..http_requests import cancellable, read_body
from .interfaces import (
    EngineDown,
    EngineError,
    EngineEvent,
    EngineUnavailable,
    ListedAttachment,
    ListedNetwork,
)

# Remedy of these errors: start Docker, or set --docker-host to the engine's socket; the plugin tries again by itself.

_CREATE_NETWORK = Failpoint(
    "engine.network.create", "the engine is asked to create the network of --create-network"
)

_EVENTS = ("create", "start", "die", "destroy", "connect", "disconnect")
REQUEST_TIMEOUT = 30.0
"""Seconds for one request; callers try again later."""
CREATION_TIMEOUT = 300.0
"""Seconds for the creation of a network: the engine calls this plugin, and perhaps others, before it answers."""


@contextmanager
def parsing_answer(subject: str) -> Iterator[None]:
    """
    Turn the exceptions of code that reads an answer into :exc:`EngineError`.

    :param subject: what the answer is about, for the message.
    """
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # Remedy: check what listens on the socket that --docker-host names.
        raise EngineError(f"the engine's answer about {subject} cannot be parsed: {error!r}") from error


class DisabledEngine:
    """The engine of ``--docker-host none``: never available."""

    async def endpoints_of(self, network_id: str) -> Mapping[str, str]:
        raise _disabled()

    async def networks(self) -> Sequence[ListedNetwork]:
        raise _disabled()

    async def process_of(self, network_id: str, endpoint_id: str) -> int | None:
        raise _disabled()

    async def containers(self) -> Mapping[str, Sequence[ListedAttachment]]:
        raise _disabled()

    async def follow_events(self, on_event: Callable[[EngineEvent], None]) -> Deferred[None]:
        raise _disabled()

    async def has_network(self, name: str) -> bool:
        raise _disabled()

    async def create_network(self, description: Mapping[str, Any]) -> str:
        raise _disabled()


def _disabled() -> EngineUnavailable:
    # Remedy: set --docker-host to the engine's socket.
    return EngineUnavailable("the engine's API is disabled by --docker-host none")


class _QuietEndpoint(UNIXClientEndpoint):
    """Logs nothing: connecting to an absent engine is retried often."""

    def connect(self, protocolFactory: Any) -> Any:
        protocolFactory.noisy = False
        return super().connect(protocolFactory)


@frozen
@implementer(IAgentEndpointFactory)
class _UnixEndpointFactory:
    reactor: Any
    path: str

    def endpointForURI(self, uri: URI) -> UNIXClientEndpoint:
        # The reactor would measure this timeout. Each request has one by our clock.
        return _QuietEndpoint(self.reactor, self.path, timeout=cast(Any, None))


class EngineClient:
    """
    An engine behind a UNIX socket.

    :param reactor: ``IReactorUNIX``
    :param clock: ``IReactorTime``, for all timeouts.
    :param docker_host: as for the docker command: ``unix:///var/run/docker.sock``.
    """

    def __init__(self, reactor: Any, clock: Any, docker_host: str) -> None:
        path = docker_host.removeprefix("unix://")
        # Requests are rare: a persistent connection would gain nothing.
        pool = HTTPConnectionPool(clock, persistent=False)
        self._clock = clock
        self._cooperator = Cooperator(scheduler=partial(clock.callLater, 0))
        self._agent = Agent.usingEndpointFactory(clock, _UnixEndpointFactory(reactor, path), pool=pool)

    async def _request(
        self,
        method: bytes,
        path: str,
        body: Mapping[str, Any] | None = None,
        timeout: float = REQUEST_TIMEOUT,
    ) -> Any:
        """
        :param timeout: in seconds.
        :raises CancelledError: if this is cancelled.
        :raises EngineUnavailable: no engine answers. :raises EngineError: with the engine's message.
        """
        answer = cancellable(ensureDeferred(self._send(method, path, body)))
        try:
            return await answer.addTimeout(timeout, self._clock)
        except TimeoutError:
            raise EngineUnavailable(f"the engine did not answer within {timeout:.0f} s") from None

    async def _send(self, method: bytes, path: str, body: Mapping[str, Any] | None) -> Any:
        producer = None
        if body is not None:
            producer = FileBodyProducer(BytesIO(json.dumps(body).encode()), self._cooperator)
        headers = Headers({b"Content-Type": [b"application/json"]})
        try:
            response = await self._agent.request(method, b"http://docker" + path.encode(), headers, producer)
            raw = await read_body(response)
        except Exception as error:  # refused, no such file, cut off while the engine starts or stops
            raise EngineUnavailable(str(error)) from error
        try:
            answer = json.loads(raw) if raw.strip() else None
        except ValueError:
            answer = {"message": raw.decode("utf-8", "replace").strip()}
        if response.code >= 400:
            message = answer.get("message", "") if isinstance(answer, dict) else str(answer)
            # Remedy: see the engine's log.
            raise EngineError(message or f"the engine answered with status {response.code}")
        return answer

    async def has_network(self, name: str) -> bool:
        # The engine's filter also matches parts of names.
        filters = urlencode({"filters": json.dumps({"name": [name]})}, quote_via=quote)
        networks = await self._request(b"GET", f"/networks?{filters}")
        with parsing_answer("its networks"):
            return any(network.get("Name") == name for network in networks)

    async def endpoints_of(self, network_id: str) -> Mapping[str, str]:
        containers = await self._containers_of(network_id)
        with parsing_answer(f"network {network_id}"):
            return {each["EndpointID"]: str(each.get("Name", "")) for each in containers.values()}

    async def _containers_of(self, network_id: str) -> Mapping[str, Any]:
        network = await self._request(b"GET", f"/networks/{quote(network_id, safe='')}")
        if not isinstance(network, dict) or network.get("Id") != network_id:
            # Remedy: check what listens on the socket that --docker-host names.
            raise EngineError(f"the engine answered with a network other than {network_id}")
        containers: Mapping[str, Any] = network.get("Containers") or {}
        return containers

    async def networks(self) -> Sequence[ListedNetwork]:
        listed = await self._request(b"GET", "/networks")
        with parsing_answer("its networks"):
            # A network that only holds the configuration of others has the subnets of those, but no pools of its own.
            networks = [each for each in listed if not each.get("ConfigOnly")]
            here = [await self._on_this_node(each) if _is_undescribed(each) else each for each in networks]
            return [_listed(each) for each in here if not _is_undescribed(each)]

    async def _on_this_node(self, network: Mapping[str, Any]) -> Mapping[str, Any]:
        """The network of a swarm as this node has it: managers of Engine 20.10 list it as the swarm does."""
        described = await self._request(b"GET", f"/networks/{quote(network['Id'], safe='')}")
        return described if described["Id"] == network["Id"] else network

    async def containers(self) -> Mapping[str, Sequence[ListedAttachment]]:
        listed = await self._request(b"GET", "/containers/json?all=1")
        with parsing_answer("its containers"):
            return {
                each["Id"]: [
                    _attachment(name, network, each.get("Names") or ())
                    for name, network in ((each.get("NetworkSettings") or {}).get("Networks") or {}).items()
                ]
                for each in listed
            }

    async def follow_events(self, on_event: Callable[[EngineEvent], None]) -> Deferred[None]:
        filters = {"type": ["container", "network"], "event": _EVENTS}
        query = urlencode({"filters": json.dumps(filters)}, quote_via=quote)
        asked = cancellable(self._agent.request(b"GET", f"http://docker/events?{query}".encode()))
        try:
            response = await asked.addTimeout(REQUEST_TIMEOUT, self._clock)
            refusal = b"" if response.code == 200 else await read_body(response)
        except CancelledError:
            raise
        except ConnectError as error:
            is_down = error.osError in (errno.ENOENT, errno.ECONNREFUSED)
            raise (EngineDown if is_down else EngineUnavailable)(str(error)) from error
        except Exception as error:
            raise EngineUnavailable(str(error)) from error
        if response.code != 200:
            raise EngineError(refusal.decode("utf-8", "replace").strip())
        events = _EventLines(on_event)
        response.deliverBody(events)
        return events.ended

    async def process_of(self, network_id: str, endpoint_id: str) -> int | None:
        containers = await self._containers_of(network_id)
        with parsing_answer(f"network {network_id}"):
            found = [key for key, each in containers.items() if each.get("EndpointID") == endpoint_id]
        if not found:
            return None
        container = await self._request(b"GET", f"/containers/{quote(found[0], safe='')}/json")
        with parsing_answer(f"container {found[0]}"):
            pid = container["State"].get("Pid")
        return pid if isinstance(pid, int) and pid > 0 else None

    async def create_network(self, description: Mapping[str, Any]) -> str:
        with _CREATE_NETWORK:
            answer = await self._request(b"POST", "/networks/create", description, CREATION_TIMEOUT)
        with parsing_answer("the network that it created"):
            return str(answer["Id"])


class _EventLines(LineOnlyReceiver):
    """Reads the body of ``/events``: a JSON object a line."""

    delimiter = b"\n"
    MAX_LENGTH = 2**20
    """A container's labels are in its events."""

    def __init__(self, on_event: Callable[[EngineEvent], None]) -> None:
        self._on_event = on_event
        self.ended: Deferred[None] = Deferred(self._end)

    def _end(self, _: Deferred[None]) -> None:
        cast(Any, self.transport).loseConnection()

    def lineReceived(self, line: bytes) -> None:
        try:
            fields = json.loads(line)
            actor = fields["Actor"]
            container_id = str((actor.get("Attributes") or {}).get("container") or "")
            event = EngineEvent(fields["Type"], fields["Action"], actor["ID"], container_id)
        except (AttributeError, KeyError, TypeError, ValueError):
            return  # of a kind that does not exist yet
        self._on_event(event)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.ended.called:
            self.ended.callback(None)


def _attachment(
    name: str, network: Mapping[str, Any] | None, container_names: Sequence[str] = ()
) -> ListedAttachment:
    network = network or {}
    ipam = network.get("IPAMConfig") or {}
    asked = [ipam.get(key) for key in ("IPv4Address", "IPv6Address")]
    return ListedAttachment(
        str(network.get("NetworkID") or name),
        str(network.get("EndpointID") or ""),
        tuple(parse_address(each) for each in asked if each),
        # A link of another container adds a name like /other/alias.
        next((str(each)[1:] for each in container_names if str(each).count("/") == 1), ""),
    )


def _is_undescribed(network: Mapping[str, Any]) -> bool:
    """Whether *network* is a swarm's and has no address management here: a manager lists also what its own node has no part in."""
    return network.get("Scope") == "swarm" and not (network.get("IPAM") or {}).get("Driver")


def _listed(network: Mapping[str, Any]) -> ListedNetwork:
    ipam = network.get("IPAM") or {}
    subnets = [each.get("Subnet") for each in ipam.get("Config") or ()]
    return ListedNetwork(
        network["Id"],
        network["Name"],
        network["Driver"],
        str(ipam.get("Driver", "")),
        # Engines before 23 show a subnet as the user wrote it, with host bits.
        tuple(ip_network(each, strict=False) for each in subnets if each),
    )
