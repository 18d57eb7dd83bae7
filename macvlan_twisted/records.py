"""Frozen values to JSON objects and back, for state: cattrs knows attrs, and is told of addresses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, ip_address, ip_interface, ip_network
from typing import Any, TypeVar

from cattrs import Converter

from .addresses import IPAddress, IPInterface, IPNetwork
from .errors import StateFailed

T = TypeVar("T")

_converter = Converter()


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
    :raises StateFailed: the document is not one of *kind*.
    """
    try:
        return _converter.structure(document, kind)
    except Exception as error:
        raise StateFailed(f"a record in state is no {kind.__name__}: {document!r}") from error
