"""Frozen values to JSON objects and back, for state: cattrs knows attrs, and is told of addresses."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import Any, TypeVar

from cattrs import Converter

from .addresses import IPAddress, IPInterface, IPNetwork
from .errors import StateFailed

T = TypeVar("T")

_converter = Converter()
for _either, _parse in ((IPAddress, ip_address), (IPInterface, ip_interface), (IPNetwork, ip_network)):
    _converter.register_structure_hook(_either, lambda value, _, parse=_parse: parse(value))
    _converter.register_structure_hook(
        _either | None, lambda value, _, parse=_parse: None if value is None else parse(value)
    )
for _kind in (IPv4Address, IPv6Address, IPv4Interface, IPv6Interface, IPv4Network, IPv6Network):
    _converter.register_unstructure_hook(_kind, str)
for _either in (IPAddress, IPInterface, IPNetwork):
    _converter.register_unstructure_hook(_either, str)
    _converter.register_unstructure_hook(_either | None, lambda value: None if value is None else str(value))


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
