"""
Netlink messages that every container needs: pyroute2 encodes each once, and later ones are patched copies.

pyroute2 takes 650 microseconds to make a link, 230 to mark it and 280 to retire it, where the kernel takes 140, 20 and 20
(docs/explanation/performance). Nearly all of that goes into encoding values that differ in a name, a MAC and a number. So
the encoded bytes are templates here. All other messages are pyroute2's work. ``tests/unit/test_message_templates.py``
compares the bytes with pyroute2's.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import Any

from attrs import frozen
from pyroute2 import IPBatch
from pyroute2.netlink.exceptions import NetlinkError

from .codec import (
    ATTRIBUTE,
    IFLA_IFALIAS,
    IFLA_IFNAME,
    LINK,
    MESSAGE,
    RTM_GETLINK,
    RTM_NEWLINK,
    LinkMark,
    group_attribute,
    link_mark,
    messages_in,
)

_SEQUENCE_AT, _INDEX_AT = 8, 20
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_DUMP = 1, 0x300
_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS = 29, 1 << 3
_DESCRIPTORS = 6
"""File descriptors: pyroute2 opens 4 with an event loop (measured); the rest is for other threads."""
MOST_TEMPLATES = 256
"""One template is for one network's options on one parent. With more of them, all are discarded and made again."""
_BYTES_AT_ONCE = 1 << 16

_ANY_INDEX = 0x7FFFFFFF
_MAC = "02:f0:0d:f0:0d:f0"
_GROUP = 0x7EADBEEF


@frozen
class _Template:
    data: bytes
    name_at: int = 0
    mac_at: int = 0
    alias_at: int = 0
    group_at: int = 0


class MessageTemplates:
    """Sends messages made of templates, on a netlink socket of its own. One thread uses it."""

    _socket: socket.socket

    def __init__(self) -> None:
        self._sequence = 0
        self._templates: dict[Any, _Template] = {}

    def open(self) -> None:
        """:raises OSError: the kernel refuses."""
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._socket.bind((0, 0))

    def close(self) -> None:
        self._socket.close()

    # All functions raise NetlinkError, as pyroute2 does, when the kernel refuses.

    def add_link(self, name: str, mac: str | None, **request: Any) -> None:
        """
        :param request: the arguments of ``IPRoute.link("add", ...)`` without name and MAC.
        """
        raw = name.encode()
        key = ("add", len(raw), mac is None, *_key(request))
        template = self._template(key, lambda: _adding(len(raw), mac is not None, request))
        message = bytearray(template.data)
        message[template.name_at : template.name_at + len(raw)] = raw
        if mac is not None:
            message[template.mac_at : template.mac_at + 6] = bytes.fromhex(mac.replace(":", ""))
        self._ask(message)

    def mark(self, index: int, alias: str) -> None:
        """Set a link's alias, and bring it down."""
        raw = alias.encode()
        template = self._template(("mark", len(raw)), lambda: _marking(len(raw)))
        message = bytearray(template.data)
        message[template.alias_at : template.alias_at + len(raw)] = raw
        self._ask_of(index, message)

    def retire(self, index: int, group: int) -> None:
        """Move a link to *group*, and bring it down."""
        template = self._template(("retire",), _retiring)
        message = bytearray(template.data)
        message[template.group_at : template.group_at + 4] = struct.pack("=I", group)
        self._ask_of(index, message)

    def remove_group(self, group: int) -> None:
        """Delete all links of *group*, also those of others."""
        template = self._template(("remove",), _removing)
        message = bytearray(template.data)
        message[template.group_at : template.group_at + 4] = struct.pack("=I", group)
        self._ask(message)

    def members(self, group: int) -> list[LinkMark]:
        """The links of *group*. The kernel lists all links; decoding one takes 10 us, so those of other groups are not."""
        carried = group_attribute(group)
        marks = (link_mark(body) for body in self._dump() if carried in body)
        return [each for each in marks if each.group == group]

    def _template(self, key: Any, make: Any) -> _Template:
        template = self._templates.get(key)
        if template is None:
            if len(self._templates) >= MOST_TEMPLATES:
                self._templates.clear()
            template = self._templates[key] = make()
        return template

    def _ask_of(self, index: int, message: bytearray) -> None:
        message[_INDEX_AT : _INDEX_AT + 4] = struct.pack("=i", index)
        self._ask(message)

    def _send(self, message: bytearray) -> int:
        self._sequence = self._sequence % 0xFFFFFFFF + 1
        message[_SEQUENCE_AT : _SEQUENCE_AT + 8] = struct.pack("=II", self._sequence, 0)
        self._socket.send(message)
        return self._sequence

    def _ask(self, message: bytearray) -> None:
        """The kernel works while we send, and its reply is there afterwards."""
        for kind, body in self._answers(self._send(message)):
            if kind == _NLMSG_ERROR:
                (code,) = struct.unpack_from("=i", body)
                if code:
                    raise NetlinkError(-code)
                return

    def _answers(self, sequence: int) -> Iterator[tuple[int, bytes]]:
        """The replies to one request. Replies to an earlier one, which was interrupted, are skipped."""
        while True:
            for kind, number, body in messages_in(self._socket.recv(_BYTES_AT_ONCE)):
                if number == sequence:
                    yield kind, body

    def _dump(self) -> Iterator[bytes]:
        for kind, body in self._answers(self._send(bytearray(_dump_request()))):
            if kind == _NLMSG_ERROR:
                raise NetlinkError(-struct.unpack_from("=i", body)[0])
            if kind == _NLMSG_DONE:
                return
            if kind == RTM_NEWLINK:
                yield body


def _dump_request() -> bytes:
    """Lists all links without their counters, which would take as long again."""
    skip = struct.pack("=HHI", 8, _IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)
    body = LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + skip
    return MESSAGE.pack(MESSAGE.size + len(body), RTM_GETLINK, _NLM_F_REQUEST | _NLM_F_DUMP, 0, 0) + body


def _key(request: dict[str, Any]) -> Iterator[Any]:
    for name, value in request.items():
        yield name, repr(value) if isinstance(value, dict) else value


def afford_event_loop() -> None:
    """
    Check that pyroute2 can open its event loop, which it does with each socket, and to encode. If descriptors run out half-way,
    the unfinished loop writes to stderr when it is collected.

    :raises OSError: too few descriptors are left.
    """
    descriptors: list[int] = []
    try:
        for _ in range(_DESCRIPTORS):
            descriptors.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    finally:
        for each in descriptors:
            os.close(each)


def _encoded(command: str, **request: Any) -> bytes:
    """A message as pyroute2 encodes it."""
    afford_event_loop()
    batch = IPBatch()
    try:
        batch.link(command, **request)
        return bytes(batch.batch)
    finally:
        batch.close()


def _place_of(what: bytes, data: bytes) -> int:
    if data.count(what) != 1:
        raise ValueError(f"pyroute2 has encoded {what!r} in an unknown way: {data.hex()}")
    return data.index(what)


def _text_place(kind: int, length: int, data: bytes) -> int:
    """The offset of the text attribute whose value is :func:`_some_text`."""
    head = ATTRIBUTE.pack(ATTRIBUTE.size + length + 1, kind)
    return _place_of(head + _some_text(length).encode() + b"\0", data) + ATTRIBUTE.size


def _some_text(length: int) -> str:
    return "\x01" * length


def _adding(length: int, has_mac: bool, request: dict[str, Any]) -> _Template:
    more = {"address": _MAC} if has_mac else {}
    data = _encoded("add", ifname=_some_text(length), **request, **more)
    return _Template(
        data,
        name_at=_text_place(IFLA_IFNAME, length, data),
        mac_at=_place_of(bytes.fromhex(_MAC.replace(":", "")), data) if has_mac else 0,
    )


def _marking(length: int) -> _Template:
    data = _encoded("set", index=_ANY_INDEX, ifalias=_some_text(length), state="down")
    return _Template(data, alias_at=_text_place(IFLA_IFALIAS, length, data))


def _retiring() -> _Template:
    data = _encoded("set", index=_ANY_INDEX, group=_GROUP, state="down")
    return _Template(data, group_at=_place_of(struct.pack("=I", _GROUP), data))


def _removing() -> _Template:
    data = _encoded("del", group=_GROUP)
    return _Template(data, group_at=_place_of(struct.pack("=I", _GROUP), data))
