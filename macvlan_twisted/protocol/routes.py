"""
Every call of the engine: how its request is read, which part handles it, and how the reply is written.

:func:`all_methods` is the table, one line a call: start here to find out what a call does. :class:`PluginApp` makes a
Klein route of each line.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any, TypeVar, cast

from attrs import define
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
from ..errors import CallTimeout
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

    async def activate(body: bytes) -> Reply:
        pools.engine_activated()
        return messages.ACTIVATED

    methods: dict[str, Method] = {
        "Plugin.Activate": activate,
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


CALL_TIMEOUT = 60.0
"""
Seconds for a call, beyond what a DHCP server may take. An engine waits for ever, and so do the commands of its users. What takes
so long waits for the disk or the kernel, or for another call that does.
"""


@define(eq=False)
class Call:
    """A call under way."""

    name: str
    began: float
    request: IRequest
    reply: Deferred[bytes]
    is_answered: bool = False

    def answer(self, status: int, body: bytes, closing: bool) -> None:
        """Succeeds when it is answered already."""
        if not self.is_answered:
            self.is_answered = True
            set_reply_head(self.request, status, body, closing)
            self.reply.callback(body)


class PluginApp:
    """
    The Klein app: one route for each method, and the count of calls under way.

    :param methods: by path, without its slash.
    :param debug: whether to log each reply with its duration.
    :param now: a clock in seconds, for durations.
    :param call_later: as of ``IReactorTime``; ``None``: a call is answered when it is finished, whenever that is.
    :param timeout: seconds after which a call is answered with an error while it goes on.
    """

    def __init__(
        self,
        methods: Mapping[str, Method],
        debug: bool,
        now: Callable[[], float] = monotonic,
        call_later: Callable[..., Any] | None = None,
        timeout: float = CALL_TIMEOUT,
    ) -> None:
        self.methods = methods
        self._debug = debug
        self._now = now
        self._call_later = call_later
        self._timeout = timeout
        self._timer: Any = None
        self._under_way: dict[Call, None] = {}
        """The oldest one first. Those that were answered too early are among them."""
        self._waiting_for_none: list[Deferred[None]] = []
        self.closing = False
        """Whether each reply asks for the end of its connection."""
        self.answered = 0
        """Calls answered so far."""

    def under_way(self) -> list[str]:
        """The names of the calls that were started and are not finished, one for each."""
        return [call.name for call in self._under_way]

    def longest_wait(self) -> float:
        """For how many seconds the oldest call has been under way; 0 if there is none."""
        return self._now() - next(iter(self._under_way)).began if self._under_way else 0.0

    def none_under_way(self) -> Deferred[None]:
        """Fires when every call that was started is finished and answered."""
        done: Deferred[None] = Deferred()
        self._waiting_for_none.append(done)
        self._report_none_under_way()
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
            call = Call(name, self._now(), request, Deferred())
            self._under_way[call] = None
            self._watch()
            ensureDeferred(self._run(call, method)).addErrback(call.reply.errback)
            return call.reply

        return route

    async def _run(self, call: Call, method: Method) -> None:
        try:
            status, body = await self._call(call, method)
            call.answer(status, body, self.closing)
        finally:
            del self._under_way[call]
            self.answered += 1
            self._report_none_under_way()

    async def _call(self, call: Call, method: Method) -> tuple[int, bytes]:
        """:return: status and body of the reply."""
        try:
            status, body = 200, encode_reply(await method(cast(Any, call.request).content.read()))
        except Exception:
            status, error = error_reply(call.name, Failure())
            body = encode_reply(error)
        if self._debug:
            _log.debug(
                "{method}: answered in {milliseconds:.2f} ms: {body}",
                method=call.name,
                milliseconds=(self._now() - call.began) * 1000,
                body=body.decode().rstrip(),
            )
        return status, body

    def _watch(self) -> None:
        """One timer for all calls: to start and cancel one for each would cost more than some calls do."""
        if self._call_later is not None and self._timer is None:
            waiting = next((each for each in self._under_way if not each.is_answered), None)
            if waiting is not None:
                left = waiting.began + self._timeout - self._now()
                self._timer = self._call_later(max(0.0, left), self._answer_late)

    def _answer_late(self) -> None:
        self._timer = None
        for call in list(self._under_way):
            if not call.is_answered and self._now() - call.began >= self._timeout:
                late = CallTimeout(
                    f"the kernel or the disk has not answered for {self._timeout:g} s: check the disk and the kernel log, then try "
                    "again; work that has begun is finished or undone in the background"
                )
                status, error = error_reply(call.name, Failure(late))
                call.answer(status, encode_reply(error), self.closing)
        self._watch()

    def _report_none_under_way(self) -> None:
        if self._under_way or not self._waiting_for_none:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
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
        reply.addErrback(_not_written, request)
        return NOT_DONE_YET


def _not_written(failure: Failure, request: Any) -> None:
    if not failure.check(CancelledError):  # else the client has hung up
        _log.failure("reply: cannot be written", failure)
        request.loseConnection()  # or the client waits for ever
