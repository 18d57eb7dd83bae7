"""Replay one recorded conversation with a service, as the recorded engine would have held it.

What the engine sent is sent again, in its order and with its overlaps, except that it repeats what *our*
service answered (:mod:`.translation`). Where the recorder was told to fail, our service answers as it sees
fit, and the engine's rollback follows all the same: from the service's view the engine has changed its mind.
"""

from __future__ import annotations

import json
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Protocol

from attrs import define, field

from . import rules
from .address_ledger import Ledger
from .recording import Call, ConnectionEvent, DockerdEvent, PluginEvent, Recording
from .refusals import Refusal, legitimate_refusal
from .schedule import waits_for
from .translation import GATEWAY_OPTION, Translation, Unknown
from .wire import Connection, NoReply, Reply, request_bytes

Json = dict[str, Any]

#: Removals are never refused: engines ask for them twice, late, and for what never was.
REMOVALS = frozenset(
    {
        "NetworkDriver.DeleteNetwork",
        "NetworkDriver.FreeNetwork",
        "NetworkDriver.DeleteEndpoint",
        "NetworkDriver.Leave",
        "NetworkDriver.RevokeExternalConnectivity",
        "NetworkDriver.DiscoverDelete",
        "IpamDriver.ReleaseAddress",
        "IpamDriver.ReleasePool",
    }
)

_MOST_CALLS_AT_ONCE = 32


class Sandboxes(Protocol):
    """What libnetwork does to links: it takes them out of the host's namespace and brings them back."""

    def take(self, link: str) -> bool:
        """Move a link into a container; False if the host has no such link."""

    def give_back(self, link: str) -> None:
        """Move a link back to the host, if its container still has it."""

    def destroy(self, link: str) -> None:
        """Let a link die with its container's namespace."""


class Service(Protocol):
    """The service under test, as an engine can affect it."""

    @property
    def socket_path(self) -> str: ...

    @property
    def sandboxes(self) -> Sandboxes: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def kill(self) -> None: ...


@define
class Outcome:
    """The outcome of a replay."""

    complaints: list[str] = field(factory=list)
    refusals: set[Refusal] = field(factory=set)
    ledger: Ledger = field(factory=Ledger)
    sent: int = 0
    #: Calls that an engine would not have made, given what our service answered before; with the reason.
    withheld: list[tuple[Call, str]] = field(factory=list)


@define
class _InFlight:
    call: Call
    done: Future[None]


@define
class Replay:
    """One conversation with one service."""

    recording: Recording
    service: Service
    outcome: Outcome = field(factory=Outcome, init=False)
    _translation: Translation = field(factory=Translation, init=False)
    _connections: dict[int, Connection] = field(factory=dict, init=False)
    _in_flight: list[_InFlight] = field(factory=list, init=False)
    _lock: threading.Lock = field(factory=threading.Lock, init=False)
    _refused: set[tuple[str, str]] = field(factory=set, init=False)
    _granted_in_vain: list[str] = field(factory=list, init=False)
    _asks_for_replay: bool = field(default=False, init=False)
    _replayed_pools: set[str] = field(factory=set, init=False)
    #: Links that are in a container, by endpoint.
    _taken: dict[str, str] = field(factory=dict, init=False)
    _plugin: str = field(default="", init=False)
    _last_mention: dict[str, float] = field(factory=dict, init=False)

    def run(self) -> Outcome:
        """Replay it from beginning to end; the service is stopped afterwards."""
        for call in self.recording.calls:
            self._last_mention[call.body.get("EndpointID", "")] = call.at
        with ThreadPoolExecutor(_MOST_CALLS_AT_ONCE) as threads:
            for event in self.recording.events:
                match event:
                    case Call():
                        self._call(event, threads)
                    case PluginEvent():
                        self._plugin_event(event)
                    case DockerdEvent(what="start"):
                        self._dockerd_starts(event.live_restore)
                    case ConnectionEvent():
                        self._connection_event(event)
            self._wait_for_all()
        for connection in self._connections.values():
            connection.close()
        return self.outcome

    def _plugin_event(self, event: PluginEvent) -> None:
        self._plugin = self._plugin or event.name
        if event.name != self._plugin:
            return  # The same plugin under a second name: one service plays both parts.
        self._wait_for_all()  # but not for the calls that a killed plugin takes with it
        if event.what == "killed":
            self.service.kill()
        elif event.what == "stop":
            self.service.stop()
        else:
            self._return_links_of_forgotten_endpoints(event.at)
            self.service.start()

    def _connection_event(self, event: ConnectionEvent) -> None:
        self._wait_for_all()
        connection = self._connections.setdefault(event.connection, Connection(self.service.socket_path))
        if event.what == "open":
            connection.open()
        else:
            connection.close()

    def _dockerd_starts(self, live_restore: bool) -> None:
        """Without live-restore no container of the dockerd before is left."""
        self._wait_for_all()
        self._translation.life += 1
        self._replayed_pools.clear()
        if live_restore:
            return
        for link in self._taken.values():
            self.service.sandboxes.destroy(link)
        self._taken.clear()

    def _return_links_of_forgotten_endpoints(self, now: float) -> None:
        """Return the links of containers that were removed while the plugin was down; no call mentions them."""
        for endpoint, link in list(self._taken.items()):
            if self._last_mention[endpoint] < now:
                self.service.sandboxes.give_back(link)
                del self._taken[endpoint]

    def _wait_for_all(self) -> None:
        wait([each.done for each in self._in_flight])
        for each in self._in_flight:
            each.done.result()
        self._in_flight.clear()

    def _call(self, call: Call, threads: ThreadPoolExecutor) -> None:
        wait([each.done for each in self._in_flight if waits_for(call, each.call)])
        self._in_flight = [each for each in self._in_flight if not each.done.done() or each.done.result()]
        with self._lock:
            reason = self._reason_to_withhold(call)
            if reason is not None:
                self.outcome.withheld.append((call, reason))
                self._note_refusal(call)
                return
            body = self._translation.body(call)
        connection = self._connections.setdefault(call.connection, Connection(self.service.socket_path))
        request = request_bytes(call.method, call.headers, body)
        self.outcome.sent += 1
        if call.hung_up or call.fault == "killed":
            connection.send(request)
            if call.hung_up:
                connection.close()
            return
        done = threads.submit(self._exchange, call, body, connection, request)
        self._in_flight.append(_InFlight(call, done))

    def _exchange(self, call: Call, body: str, connection: Connection, request: bytes) -> None:
        try:
            reply = connection.exchange(request)
        except NoReply as error:
            with self._lock:
                self._complain(call, str(error))
            return
        if call.fault == "drop":
            connection.close()
        with self._lock:
            amended = self._judge(call, json.loads(body) if body else {}, reply)
        if amended is not None:
            text = json.dumps(amended, separators=(",", ":")) + "\n"
            self._exchange(call, text, connection, request_bytes(call.method, call.headers, text))

    def _complain(self, call: Call, *complaints: str) -> None:
        self.outcome.complaints += [f"{call}: {complaint}" for complaint in complaints]

    def _judge(self, call: Call, sent: Json, reply: Reply) -> Json | None:
        """Check the reply by the rules; return a body if the user amends the command."""
        self._complain(call, *rules.check_http(reply.status, reply.headers, reply.body, reply.json))
        if not isinstance(reply.json, dict):
            return None
        if rules.is_error(reply.json):
            return self._judge_refusal(call, sent, reply.json)
        if self._must_be_refused(call):
            self._complain(call, "accepted, although it cannot be done")
        else:
            self._judge_success(call, sent, reply.json)
        return None

    def _must_be_refused(self, call: Call) -> bool:
        if call.lost_its_body:
            return True
        return (
            call.method == "IpamDriver.RequestAddress" and call.fault is None and not call.recorder_accepted
        )

    def _judge_refusal(self, call: Call, sent: Json, reply: Json) -> Json | None:
        self._complain(call, *rules.check_error(reply))
        if self._must_be_refused(call):
            return None
        message = str(reply.get("Err") or reply.get("Error"))
        row = legitimate_refusal(self.recording, call.method, message)
        if row is not None and call.method not in REMOVALS:
            self.outcome.refusals.add(row)
            if row.amendment is not None:
                return row.amended(sent)
        else:
            self._complain(call, f"refused: {message}")
        self._note_refusal(call)
        return None

    def _note_refusal(self, call: Call) -> None:
        """Note that what this call would have created does not exist: an engine does not mention it again."""
        if call.method == "IpamDriver.RequestPool" and self._translation.has_pool(
            str((call.reply or {}).get("PoolID"))
        ):
            return
        subject = {"CreateNetwork": "NetworkID", "CreateEndpoint": "EndpointID", "RequestPool": "PoolID"}.get(
            call.method.partition(".")[2]
        )
        if subject is not None:
            source = call.reply if subject == "PoolID" else call.body
            self._refused.add((subject, str((source or {}).get(subject))))

    def _judge_success(self, call: Call, sent: Json, reply: Json) -> None:
        complaints = rules.check_successful_reply(call.method, sent, reply, self._context(call))
        self._complain(call, *complaints)
        if complaints:
            return
        self._translation.learn(call, reply)
        self.outcome.ledger.note_success(call, sent, reply)
        match call.method:
            case "NetworkDriver.Join" if self._link_is_taken_after(call):
                self._take_link(call, reply["InterfaceName"]["SrcName"])
            case "NetworkDriver.Leave":
                self._give_link_back(call.body["EndpointID"])
            case "IpamDriver.RequestPool":
                self._ask_for_the_gateway(call)
            case "IpamDriver.GetCapabilities":
                self._asks_for_replay = bool(reply.get("RequiresRequestReplay"))

    def _context(self, call: Call) -> rules.CallContext:
        ledger = self.outcome.ledger
        match call.method:
            case "IpamDriver.RequestAddress":
                return rules.CallContext(pool=str(self._translation.pool(call.body["PoolID"]).ours))
            case "NetworkDriver.Join":
                return rules.CallContext(
                    addresses=ledger.addresses_of(call.body["EndpointID"]),
                    internal=ledger.is_internal(call.body["NetworkID"]),
                )
        return rules.CallContext()

    def _link_is_taken_after(self, join: Call) -> bool:
        """An engine that could not use the recorder's answer did not touch the link; 20.10 even left out Leave."""
        endpoint = join.body["EndpointID"]
        later = (
            each for each in self.recording.calls[join.number :] if each.body.get("EndpointID") == endpoint
        )
        following = next(later, None)
        return join.recorder_accepted and (
            following is None or following.method != "NetworkDriver.DeleteEndpoint"
        )

    def _take_link(self, call: Call, link: str) -> None:
        if self.service.sandboxes.take(link):
            self._taken[call.body["EndpointID"]] = link
        else:
            self._complain(call, f"the host has no link {link}")

    def _give_link_back(self, endpoint: str) -> None:
        link = self._taken.pop(endpoint, None)
        if link is not None:
            self.service.sandboxes.give_back(link)

    def _ask_for_the_gateway(self, call: Call) -> None:
        """The recorder was told to name a gateway with the pool; where we do not, an engine asks for one."""
        recorded = (call.reply.get("Data") or {}).get(GATEWAY_OPTION) if call.fault == "reply" else None
        if recorded is None:
            return
        pool = self._translation.pool(call.reply["PoolID"])
        if pool.gateway_in_data is not None:
            self._translation.lend(call.reply["PoolID"], recorded, pool.gateway_in_data)
            return
        options = {"RequestAddressType": GATEWAY_OPTION}
        body = json.dumps({"PoolID": pool.our_id, "Address": "", "Options": options}) + "\n"
        connection = Connection(self.service.socket_path)
        reply = connection.exchange(request_bytes("IpamDriver.RequestAddress", call.headers, body))
        connection.close()
        self._complain(call, *rules.check_request_address({}, reply.json, str(pool.ours)))
        self._translation.lend(call.reply["PoolID"], recorded, reply.json["Address"])

    def _reason_to_withhold(self, call: Call) -> str | None:
        """Return why an engine with our replies would not make this call; None if it would."""
        body = call.body
        subjects = {(name, str(body[name])) for name in ("NetworkID", "EndpointID", "PoolID") if name in body}
        about_a_network = call.method.startswith("NetworkDriver.")
        if subjects & self._refused and not (about_a_network and call.method in REMOVALS):
            return "our service had refused what this is about"
        if call.method == "IpamDriver.RequestPool" and self._asks_again_only_because_of_the_recorder(call):
            self._granted_in_vain.append(call.reply["PoolID"])
            return "the recorder was told to offer the same pool twice"
        if not self._asks_for_replay and self._is_replay(call):
            return "our service does not ask for replay"
        if call.method == "IpamDriver.ReleasePool" and body["PoolID"] in self._granted_in_vain:
            self._granted_in_vain.remove(body["PoolID"])
            return "the release of a pool that was offered twice"
        if call.method == "IpamDriver.RequestAddress" and self._has_gateway_already(call):
            return "our service had named the gateway with the pool"
        try:
            self._translation.body(call)
        except Unknown as unknown:
            if not self._refused:
                self._complain(call, f"{unknown} is unknown to the replay")
            return f"our service had not granted {unknown}"
        return None

    def _asks_again_only_because_of_the_recorder(self, call: Call) -> bool:
        return call.fault == "reply" and self._translation.has_pool(call.reply["PoolID"])

    def _is_replay(self, call: Call) -> bool:
        """With RequiresRequestReplay dockerd asks at its start for all pools, gateways and aux addresses.

        Without it dockerd goes on using the pool id that it has on disk.
        """
        if call.method == "IpamDriver.RequestAddress":
            return call.body["PoolID"] in self._replayed_pools and self._translation.is_lent(call)
        if call.method != "IpamDriver.RequestPool":
            return False
        pool = self._translation.replayed_pool(call)
        if pool is not None and call.recorder_accepted:
            self._translation.rename_pool(call.reply["PoolID"], pool)
            self._replayed_pools.add(call.reply["PoolID"])
        return pool is not None

    def _has_gateway_already(self, call: Call) -> bool:
        options = call.body["Options"] or {}
        if options.get("RequestAddressType") != GATEWAY_OPTION or call.body["Address"]:
            return False
        if not self._translation.has_pool(call.body["PoolID"]):
            return False
        pool = self._translation.pool(call.body["PoolID"])
        if pool.gateway_in_data is None:
            return False
        if call.recorder_accepted:
            self._translation.lend(call.body["PoolID"], call.reply["Address"], pool.gateway_in_data)
        return True
