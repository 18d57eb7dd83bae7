"""A scripted DHCP server with the bytes of RFC 2131, and a recording lease store."""

from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import IPv4Address
from random import Random

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from macvlan_twisted.dhcp.binding import Binding, Client
from macvlan_twisted.dhcp.lease import Lease
from macvlan_twisted.dhcp.transaction import Environment
from macvlan_twisted.testing.packet_socket import FakeLanSocket

MAC = "7a:42:c0:a8:4d:64"
STRANGER = "52:54:00:00:00:99"
EPOCH = 1_700_000_000.0
"""The time of day when a test begins."""

DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE = range(1, 8)


@frozen
class ClientFrame:
    """A client's message, decoded by the offsets of RFC 2131, not by the code under test."""

    frame: bytes

    @property
    def payload(self) -> bytes:
        return self.frame[42:]

    @property
    def destination_mac(self) -> str:
        return self.frame[:6].hex(":")

    @property
    def source_mac(self) -> str:
        return self.frame[6:12].hex(":")

    @property
    def source(self) -> str:
        return str(IPv4Address(self.frame[26:30]))

    @property
    def destination(self) -> str:
        return str(IPv4Address(self.frame[30:34]))

    @property
    def xid(self) -> bytes:
        return self.payload[4:8]

    @property
    def broadcast(self) -> bool:
        return bool(self.payload[10] & 0x80)

    @property
    def ciaddr(self) -> str:
        return str(IPv4Address(self.payload[12:16]))

    @property
    def chaddr(self) -> str:
        return self.payload[28:34].hex(":")

    @property
    def options(self) -> dict[int, bytes]:
        found, at = {}, 240
        while self.payload[at] != 255:
            code, length = self.payload[at], self.payload[at + 1]
            found[code] = self.payload[at + 2 : at + 2 + length]
            at += 2 + length
        return found

    @property
    def kind(self) -> int:
        return self.options[53][0]

    @property
    def requested(self) -> str | None:
        option = self.options.get(50)
        return None if option is None else str(IPv4Address(option))

    @property
    def server_id(self) -> str | None:
        option = self.options.get(54)
        return None if option is None else str(IPv4Address(option))


def option(code: int, value: bytes) -> bytes:
    return bytes((code, len(value))) + value


def answer_frame(
    xid: bytes,
    kind: int,
    *,
    mac: str = MAC,
    your_address: str = "0.0.0.0",
    server_mac: str = "52:54:00:00:00:01",
    server_id: str = "192.168.77.1",
    options: bytes = b"",
) -> bytes:
    """A server's message as a broadcast frame, its checksums left to hardware as on a veth pair."""
    payload = (
        b"\x02\x01\x06\x00"
        + xid
        + bytes(8)
        + IPv4Address(your_address).packed
        + bytes(8)
        + bytes.fromhex(mac.replace(":", "")).ljust(16, b"\0")
        + bytes(192)
        + b"\x63\x82\x53\x63"
        + option(53, bytes((kind,)))
        + option(54, IPv4Address(server_id).packed)
        + options
        + b"\xff"
    )
    udp = struct.pack(">HHHH", 67, 68, 8 + len(payload), 0) + payload
    ip = struct.pack(
        ">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, IPv4Address(server_id).packed, b"\xff" * 4
    )
    return b"\xff" * 6 + bytes.fromhex(server_mac.replace(":", "")) + b"\x08\x00" + ip + udp


@define
class Server:
    """Offers and confirms :attr:`address`, or a requested address in :attr:`others`."""

    address: str = "192.168.77.100"
    id: str = "192.168.77.1"
    mac: str = "52:54:00:00:00:01"
    lease_seconds: int = 3600
    t1: int | None = None
    t2: int | None = None
    others: tuple[str, ...] = ()
    away: bool = False
    naks: int = 0
    """The number of REQUESTs to refuse."""
    received: list[ClientFrame] = field(factory=list)

    def __call__(self, frame: bytes) -> list[bytes]:
        said = ClientFrame(frame)
        if self.away or said.destination_mac not in (self.mac, "ff:ff:ff:ff:ff:ff"):
            return []
        self.received.append(said)
        if said.kind == DISCOVER:
            address = said.requested if said.requested in self.others else self.address
            return [self.answer(said, OFFER, address or "")]
        if said.kind == REQUEST and said.server_id in (None, self.id):
            address = said.requested or said.ciaddr
            if self.naks or address not in (self.address, *self.others):
                self.naks = max(0, self.naks - 1)
                return [self.answer(said, NAK)]
            return [self.answer(said, ACK, address)]
        return []

    def answer(self, said: ClientFrame, kind: int, address: str = "0.0.0.0") -> bytes:
        if kind == NAK:
            return self._frame(said, kind, address, option(56, b"not yours\x07"))
        times = option(51, struct.pack(">I", self.lease_seconds))
        for code, seconds in ((58, self.t1), (59, self.t2)):
            if seconds is not None:
                times += option(code, struct.pack(">I", seconds))
        return self._frame(
            said, kind, address, times + option(1, b"\xff\xff\xff\0") + option(3, bytes((192, 168, 77, 1)))
        )

    def _frame(self, said: ClientFrame, kind: int, address: str, options: bytes) -> bytes:
        return answer_frame(
            said.xid,
            kind,
            mac=said.chaddr,
            your_address=address,
            server_mac=self.mac,
            server_id=self.id,
            options=options,
        )


@define
class RecordingHolder:
    """A lease store that records its calls, with scripted results."""

    notes: list[tuple[str, str]] = field(factory=list)
    users: dict[str, str] = field(factory=dict)
    """The MACs of other hosts, by address."""
    reserved: dict[str, str] = field(factory=dict)
    """Why no container may have an address, by address."""
    blind: Exception | None = None
    """The error of every probe."""
    moves: bool = False
    disk: Callable[[str], Deferred[None] | None] = lambda what: None
    saved: list[Binding] = field(factory=list)

    async def save_offer(self, offered: Binding) -> None:
        self.notes.append(("save_offer", str(offered.address)))
        await self._written("save_offer")

    async def save_binding(self, binding: Binding) -> None:
        self.notes.append(("save_binding", str(binding.address)))
        self.saved.append(binding)
        await self._written("save_binding")

    async def _written(self, what: str) -> None:
        waiting = self.disk(what)
        if waiting is not None:
            await waiting

    def unusable(self, address: IPv4Address) -> str | None:
        return self.reserved.get(str(address))

    async def in_use(self, address: IPv4Address) -> str | None:
        self.notes.append(("in use?", str(address)))
        if self.blind is not None:
            raise self.blind
        return self.users.get(str(address))

    def lost(self, binding: Binding, reason: str) -> None:
        self.notes.append(("lost", reason))

    def reacquired(self, binding: Binding) -> None:
        self.notes.append(("reacquired", str(binding.address)))

    async def readdress(self, old: Binding, new: Binding) -> bool:
        self.notes.append(("readdress", f"{old.address} to {new.address}"))
        return self.moves

    def noted(self, *what: str) -> list[tuple[str, str]]:
        return [note for note in self.notes if note[0] in what]


class LeaseFixture:
    """One container on a LAN with servers, in memory, with a manual clock."""

    def __init__(self, *servers: Server) -> None:
        self.clock = Clock()
        self.wall_offset = 0.0
        """Seconds by which somebody has set the time of day."""
        self.wire = FakeLanSocket("eth1")
        self.wire.answerers.extend(servers)
        self.holder = RecordingHolder()
        self.lease = self.new_lease()

    def new_lease(self, client: Client | None = None, seed: int = 7) -> Lease:
        return Lease(
            self.wire,
            client or Client(MAC, hostname="web", vendor_class="macvlan-twisted"),
            self.holder,
            Environment(self.clock, Random(seed), lambda: EPOCH + self.wall_offset + self.clock.seconds()),
        )

    @property
    def sent_frames(self) -> list[ClientFrame]:
        return [ClientFrame(frame) for frame in self.wire.sent]

    @property
    def kinds(self) -> list[int]:
        return [said.kind for said in self.sent_frames]

    def pass_time(self, seconds: float, step: float = 0.25) -> None:
        """Advance the clock in steps, since a timer may set the next one."""
        for _ in range(int(seconds / step)):
            self.clock.advance(step)

    def is_silent(self) -> bool:
        """Whether there are no listeners and no timers."""
        return self.wire.listeners == 0 and not self.clock.getDelayedCalls()
