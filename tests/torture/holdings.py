"""Who has which address, as three witnesses tell it: the replies to the callers, ARP frames on the LAN, and etcd."""

import json
import sys
import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from attrs import define, field

from tests.lab.daemons import Daemon
from tests.lab.lan import Lan

WIRE = """
import json, socket, struct, sys, time
# All frames: those of a bridge's ports are taken by the bridge before anybody who asks for one protocol sees them.
tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
load, jump, accept, drop = (0x28, 0, 0, 12), (0x15, 0, 1, 0x806), (6, 0, 0, 0xffff), (6, 0, 0, 0)
program = b"".join(struct.pack("HBBI", *each) for each in (load, jump, accept, drop))
import ctypes
memory = ctypes.create_string_buffer(program)
tap.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HL", 4, ctypes.addressof(memory)))
tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
print("ready", flush=True)
while True:
    frame, where = tap.recvfrom(2048)
    if where[2] != 4 and where[0].endswith("-eth1") and len(frame) >= 42 and frame[28:32] != bytes(4):
        print(json.dumps([time.monotonic(), where[0][:-5], socket.inet_ntoa(frame[28:32])]), flush=True)
"""
"""Prints when which port has received an ARP frame that claims which address. A probe claims none."""


@define
class Holding:
    """A container has an address."""

    address: str
    host: str
    begin: float
    """When the reply was there."""
    end: float = float("inf")
    """When it was about to be released."""
    is_occupied: bool = False
    """Whether a caller has the container run, and nobody may release the address."""


@define(eq=False)
class Holdings:
    """All holdings since the start; the methods are for many threads."""

    all: list[Holding] = field(factory=list)
    current: dict[str, Holding] = field(factory=dict)
    doubles: list[str] = field(factory=list)
    _lock: threading.Lock = field(factory=threading.Lock)

    def begin(self, address: str, host: str) -> None:
        """A reply has given *address* to a container."""
        with self._lock:
            other = self.current.get(address)
            if other is not None:
                self.doubles.append(f"{address} was given to {host}, although {other.host} has it")
            self.current[address] = holding = Holding(address, host, time.monotonic())
            self.all.append(holding)

    def end(self, address: str, host: str) -> bool:
        """
        A container is about to release *address*.

        :return: whether it has it; only one caller gets that answer.
        """
        with self._lock:
            holding = self.current.get(address)
            if holding is None or holding.host != host or holding.is_occupied:
                return False
            del self.current[address]
            holding.end = time.monotonic()
            return True

    def occupy(self, address: str, host: str) -> bool:
        """:return: whether the address is the caller's alone, until :meth:`vacate`."""
        with self._lock:
            holding = self.current.get(address)
            if holding is None or holding.host != host or holding.is_occupied:
                return False
            holding.is_occupied = True
            return True

    def vacate(self, address: str) -> None:
        """Let other callers release the address."""
        self.current[address].is_occupied = False

    def of(self, host: str) -> list[str]:
        """Return what containers of a host have."""
        with self._lock:
            return [address for address, each in self.current.items() if each.host == host]

    def contradicted(self, frames: Iterable[tuple[float, str, str]]) -> list[str]:
        """Return the frames by which one host claims an address that a container of another one has."""
        by_address: dict[str, list[Holding]] = {}
        for each in self.all:
            by_address.setdefault(each.address, []).append(each)
        return [
            f"{port} claims {address} on the LAN, which {each.host} has had for {at - each.begin:.3f} s"
            for at, port, address in frames
            for each in by_address.get(address, ())
            if each.host != port and each.begin <= at <= each.end
        ]


class Wire:
    """Listens at the switch for the addresses that each host claims by ARP, within a ``with`` block."""

    def __init__(self, lan: Lan) -> None:
        """Prepare it."""
        self._daemon = Daemon("the listener", (*lan.enter("switch"), sys.executable, "-I", "-c", WIRE))

    def __enter__(self) -> Self:
        """On return it listens."""
        self._daemon.start()
        self._daemon.wait_for_log("ready", seconds=10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening."""
        self._daemon.kill()

    def frames(self) -> list[tuple[float, str, str]]:
        """Return the frames so far: when, from which place, and the address that it claims."""
        *whole, _ = self._daemon.log().split("\n")
        return [(at, place, address) for at, place, address in map(json.loads, whole[1:])]
