"""
Every call of the engine: how its request is read, which part handles it, and how the reply is written.

:func:`all_methods` is the table, one line a call: start here to find out what a call does. :class:`PluginApp` makes a
Klein route of each line.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from time import monotonic
from typing import Any, TypeVar, cast

from klein import Klein
from klein.resource import KleinResource
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.server import NOT_DONE_YET

from ..driver.endpoints import EndpointRemoval, Endpoints
from ..driver.join import Joining
from ..driver.networks import Networks
from ..driver.requests import CreateNetwork
from ..ipam.address_requests import AddressRequests
from ..ipam.pool_binding import PoolBinding
from ..ipam.pool_requests import PoolRequests
from . import messages
from .errors import error_reply, printable
from .json_reader import Fields, parse_body
from .site import encode_reply, set_reply_head

_log = Logger(namespace="macvlan_twisted.protocol")

Reply = Mapping[str, Any]
Method = Callable[[bytes], Awaitable[Reply]]
"""From the body of a request to the object that is the reply."""
Request = TypeVar("Request")
Result = TypeVar("Result")


def all_methods(
    networks: Networks,
    endpoints: Endpoints,
    joining: Joining,
    removal: EndpointRemoval,
    pool_binding: PoolBinding,
    pools: PoolRequests,
    addresses: AddressRequests,
) -> dict[str, Method]:
    """Every method by the path that the engine posts to, without its slash."""
    methods: dict[str, Method] = {
        "Plugin.Activate": _constant(messages.ACTIVATED),
        "NetworkDriver.GetCapabilities": _constant(messages.NETWORK_CAPABILITIES),
        "NetworkDriver.DiscoverNew": _constant({}),
        "NetworkDriver.DiscoverDelete": _constant({}),
        "IpamDriver.GetCapabilities": _constant(messages.IPAM_CAPABILITIES),
        "IpamDriver.GetDefaultAddressSpaces": _constant(messages.ADDRESS_SPACES),
    }

    def call(
        name: str,
        read: Callable[[Fields], Request],
        handle: Callable[[Request], Awaitable[Result]],
        write: Callable[[Result], Reply],
    ) -> None:
        async def method(body: bytes) -> Reply:
            return write(await handle(read(parse_body(name, body))))

        methods[name] = method

    async def create_network(request: CreateNetwork) -> None:
        await networks.create(request)
        await pool_binding.network_created(
            networks.parent_of(request.network_id),
            [(each.pool, each.auxiliary.values()) for each in request.subnets if each.managed_here],
            request.network_id,
        )

    m = messages
    call("NetworkDriver.GwAllocCheck", m.gateway_check, networks.gateway_check, m.gateway_check_reply)
    call("NetworkDriver.AllocateNetwork", m.allocate_network, networks.allocate, m.allocate_network_reply)
    call("NetworkDriver.FreeNetwork", m.network_id, networks.free, _empty)
    call("NetworkDriver.CreateNetwork", m.create_network, create_network, _empty)
    call("NetworkDriver.DeleteNetwork", m.network_id, networks.delete, _empty)
    call("NetworkDriver.CreateEndpoint", m.create_endpoint, endpoints.create, m.create_endpoint_reply)
    call(
        "NetworkDriver.EndpointOperInfo",
        m.endpoint_call,
        endpoints.operational_info,
        m.operational_info_reply,
    )
    call("NetworkDriver.Join", m.join, joining.join, m.join_reply)
    call("NetworkDriver.ProgramExternalConnectivity", m.endpoint_call, _publish_no_ports, _empty)
    call("NetworkDriver.RevokeExternalConnectivity", m.endpoint_call, _publish_no_ports, _empty)
    call("NetworkDriver.Leave", m.endpoint_call, joining.leave, _empty)
    call("NetworkDriver.DeleteEndpoint", m.endpoint_call, removal.delete, _empty)
    call("IpamDriver.RequestPool", m.request_pool, pools.request_pool, m.request_pool_reply)
    call("IpamDriver.ReleasePool", m.pool_id, pools.release_pool, _empty)
    call("IpamDriver.RequestAddress", m.request_address, addresses.request_address, m.request_address_reply)
    call("IpamDriver.ReleaseAddress", m.release_address, addresses.release_address, _empty)
    return methods


def _constant(reply: Reply) -> Method:
    """For calls without a body; one that comes all the same is ignored."""

    async def method(body: bytes) -> Reply:
        return reply

    return method


def _empty(result: None) -> Reply:
    return {}


async def _publish_no_ports(request: object) -> None:
    """Do nothing: containers have addresses of their own on the LAN, so no port of the host leads to them."""


class PluginApp:
    """
    The Klein app: one route for each method, and the count of calls under way.

    :param methods: by path, without its slash.
    :param debug: whether to log each reply with its duration.
    :param now: a clock in seconds, for durations.
    """

    def __init__(
        self, methods: Mapping[str, Method], debug: bool, now: Callable[[], float] = monotonic
    ) -> None:
        self.methods = methods
        self._debug = debug
        self._now = now
        self._under_way: dict[int, tuple[str, float]] = {}
        """Of each call: its name, and when it began; the oldest one first."""
        self._numbers = count()
        self._waiting_for_none: list[Deferred[None]] = []
        self.closing = False
        """Whether each reply asks for the end of its connection."""
        self.answered = 0
        """Calls answered so far."""

    def under_way(self) -> list[str]:
        """The names of the calls that were started and not answered, one for each."""
        return [name for name, _ in self._under_way.values()]

    def longest_wait(self) -> float:
        """For how many seconds the oldest call has been waiting for its answer; 0 if there is none."""
        return self._now() - next(iter(self._under_way.values()))[1] if self._under_way else 0.0

    def none_under_way(self) -> Deferred[None]:
        """Fires when every call that was started has been answered."""
        done: Deferred[None] = Deferred()
        if self._under_way:
            self._waiting_for_none.append(done)
        else:
            done.callback(None)
        return done

    def resource(self) -> KleinResource:
        app = Klein()
        for name, method in self.methods.items():
            app.route(f"/{name}", methods=["POST"], endpoint=name)(self._route(name, method))
        app.handle_errors(Exception)(self._not_routed)
        return PluginResource(app)

    def _route(self, name: str, method: Method) -> Callable[[IRequest], Deferred[bytes]]:
        def route(request: IRequest) -> Deferred[bytes]:
            # Klein cancels what a route returns when the client hangs up. A started call must go on, so it is not
            # the call itself that is returned.
            reply: Deferred[bytes] = Deferred()
            number, began = next(self._numbers), self._now()
            self._under_way[number] = name, began
            call = ensureDeferred(self._call(name, method, request, began))
            call.addBoth(reply.callback).addBoth(self._call_ended, number)
            return reply

        return route

    async def _call(self, name: str, method: Method, request: IRequest, began: float) -> bytes:
        try:
            status, body = 200, encode_reply(await method(cast(Any, request).content.read()))
        except Exception:
            status, error = error_reply(name, Failure())
            body = encode_reply(error)
        if self._debug:
            _log.debug(
                "{method}: answered in {milliseconds:.2f} ms: {body}",
                method=name,
                milliseconds=(self._now() - began) * 1000,
                body=body.decode().rstrip(),
            )
        set_reply_head(request, status, body, self.closing)
        return body

    def _call_ended(self, _: object, number: int) -> None:
        del self._under_way[number]
        self.answered += 1
        if not self._under_way:
            waiting, self._waiting_for_none = self._waiting_for_none, []
            for done in waiting:
                done.callback(None)

    def _not_routed(self, request: IRequest, failure: Failure) -> bytes:
        """No such method, or not a POST."""
        name = printable(request.path.decode("ascii", "replace").lstrip("/"))
        status, error = error_reply(name, failure)
        body = encode_reply(error)
        set_reply_head(request, status, body, self.closing)
        return body


class PluginResource(KleinResource):
    """Finds an engine's path in a dictionary; for all else there is Klein's matcher, which takes longer."""

    def __init__(self, app: Klein) -> None:
        super().__init__(app)
        self._endpoints = {rule.rule.encode(): rule.endpoint for rule in app.url_map.iter_rules()}

    def render(self, request: Any) -> Any:
        endpoint = self._endpoints.get(request.path) if request.method == b"POST" else None
        if endpoint is None:
            # Klein answers a path that is not UTF-8 with text, outside of its error handlers.
            request.postpath = [each.decode("utf-8", "replace").encode() for each in request.postpath]
            return super().render(request)
        reply = cast("Deferred[bytes]", self._app.execute_endpoint(endpoint, request))
        request.notifyFinish().addErrback(lambda _: reply.cancel())
        reply.addCallback(request.write).addCallback(lambda _: request.finish())
        reply.addErrback(lambda failure: failure.trap(CancelledError)).addErrback(self._not_written, request)
        return NOT_DONE_YET

    def _not_written(self, failure: Failure, request: Any) -> None:
        _log.failure("reply: cannot be written", failure)
        request.loseConnection()  # or the client waits for ever
