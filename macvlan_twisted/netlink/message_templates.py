"""
Netlink messages that every container needs: pyroute2 encodes each once, and later ones are patched copies.

pyroute2 takes 650 microseconds to make a link, 230 to mark it and 280 to retire it, where the kernel takes 140, 20 and 20
(docs/explanation/performance). Nearly all of that goes into encoding values that differ in a name, a MAC and a number. So
the encoded bytes are templates here. All other messages are pyroute2's work. ``tests/unit/test_message_templates.py``
compares the bytes with pyroute2's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from attrs import frozen

from .codec import ATTRIBUTE, IFLA_IFALIAS, IFLA_IFNAME
from .raw_socket import RawSocket

_INDEX_AT = 20
MOST_TEMPLATES = 256
"""One template is for one network's options on one parent. With more of them, all are discarded and made again."""

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
    """
    Sends messages made of templates. One thread uses it.

    :raises OSError: all functions, when the kernel refuses.
    """

    def __init__(self, netlink: RawSocket) -> None:
        self._netlink = netlink
        self._templates: dict[Any, _Template] = {}

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
        self._netlink.ask(message)

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
        self._netlink.ask(message)

    def _template(self, key: Any, make: Any) -> _Template:
        template = self._templates.get(key)
        if template is None:
            if len(self._templates) >= MOST_TEMPLATES:
                self._templates.clear()
            template = self._templates[key] = make()
        return template

    def _ask_of(self, index: int, message: bytearray) -> None:
        message[_INDEX_AT : _INDEX_AT + 4] = struct.pack("=i", index)
        self._netlink.ask(message)


def _key(request: dict[str, Any]) -> Iterator[Any]:
    for name, value in request.items():
        yield name, repr(value) if isinstance(value, dict) else value


def _encoded(command: str, **request: Any) -> bytes:
    from .pyroute import encoded

    return encoded(command, **request)


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
