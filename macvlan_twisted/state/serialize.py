"""Converts frozen values to JSON objects and back, with cattrs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, ip_address, ip_interface, ip_network
from typing import Any, TypeVar

from attrs import fields, has
from cattrs import Converter
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from ..addresses import IPAddress, IPInterface, IPNetwork
from ..errors import StateError

# Remedy of these errors: if you have an intact, up-to-date copy of the state directory, restore it; otherwise start the
# plugin once with --recover.

T = TypeVar("T")

_converter = Converter()

STORED_NAMES = {
    "binding": "facts",
    "reported_address": "told_address",
    "mac_generated": "mac_is_ours",
    "static_routes": "ways",
    "managed_here": "is_ours",
    "null_ipam": "is_nobodys",
    "allow_parent_mac_change": "force_mac",
    "allow_wireless_parent": "force_wifi",
    "rebuilt_for": "stands_for",
    "released_ids": "given_back",
}
"""Fields that have another name on disk, which they had when the format was fixed."""


def _overrides(kind: Any) -> dict[str, Any]:
    return {
        each.name: override(rename=STORED_NAMES[each.name])
        for each in fields(kind)
        if each.name in STORED_NAMES
    }


_converter.register_structure_hook_factory(
    has, lambda kind: make_dict_structure_fn(kind, _converter, **_overrides(kind))
)
_converter.register_unstructure_hook_factory(
    has, lambda kind: make_dict_unstructure_fn(kind, _converter, **_overrides(kind))
)


def _know(either: Any, parse: Callable[[str], Any]) -> None:
    """Teach the converter one union of address types, also where it may be ``None``."""
    optional = either | None
    _converter.register_structure_hook(either, lambda value, _: parse(value))
    _converter.register_structure_hook(optional, lambda value, _: None if value is None else parse(value))
    _converter.register_unstructure_hook(either, str)
    _converter.register_unstructure_hook(optional, lambda value: None if value is None else str(value))


_know(IPAddress, ip_address)
_know(IPInterface, ip_interface)
_know(IPNetwork, ip_network)
_converter.register_structure_hook(IPv4Address, lambda value, _: IPv4Address(value))
_converter.register_unstructure_hook(IPv4Address, str)


def to_document(value: Any) -> Mapping[str, Any]:
    document: Mapping[str, Any] = _converter.unstructure(value)
    return document


def from_document(kind: type[T], document: Mapping[str, Any]) -> T:
    """
    :raises StateError: the document is not one of *kind*.
    """
    try:
        return _converter.structure(document, kind)
    except Exception as error:
        raise StateError(f"record in the state is not of kind {kind.__name__}: {document!r}") from error
