"""Where a fleet's etcd cluster is: ``etcd://a:2379,b:2379,[fd00::3]:2379/prefix``."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address

from attrs import frozen

SCHEME = "etcd://"
DEFAULT_PORT = 2379
DEFAULT_PREFIX = "/macvlan-twisted"
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252})")
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._-]+)+")


@frozen
class EtcdLocation:
    """The members that are asked first, and the prefix of all keys of the fleet."""

    endpoints: tuple[str, ...]
    """Each a host and a port, with IPv6 addresses in brackets."""
    prefix: str = DEFAULT_PREFIX

    def __str__(self) -> str:
        path = "" if self.prefix == DEFAULT_PREFIX else self.prefix
        return SCHEME + ",".join(self.endpoints) + path

    def urls(self, *, encrypted: bool) -> tuple[str, ...]:
        """The members' URLs. TLS is chosen by the options for certificates, not by the location."""
        return tuple(f"{'https' if encrypted else 'http'}://{each}" for each in self.endpoints)


def parse_etcd_location(text: str) -> EtcdLocation:
    """:raises ValueError: with the value and the remedy."""
    if not text.startswith(SCHEME):
        raise ValueError(
            f"{text!r} is not the location of an etcd cluster: use etcd://HOST:2379,HOST:2379,HOST:2379"
        )
    hosts, _, path = text.removeprefix(SCHEME).partition("/")
    key_prefix = f"/{path.rstrip('/')}"
    if not path.strip("/"):
        key_prefix = DEFAULT_PREFIX
    elif not _PREFIX.fullmatch(key_prefix):
        raise ValueError(
            f"{key_prefix!r} is not a prefix of keys: use letters, digits, '.', '_' and '-' between slashes, like /macvlan-twisted"
        )
    endpoints = tuple(_endpoint(each.strip()) for each in hosts.split(","))
    for member in endpoints:
        if endpoints.count(member) > 1:
            raise ValueError(
                f"{member!r} is there twice in {text!r}: name each member of the etcd cluster once"
            )
    return EtcdLocation(endpoints, key_prefix)


def _endpoint(text: str) -> str:
    host, port = _split(text)
    if not _is_host(host):
        raise ValueError(
            f"{text!r} is not a member of an etcd cluster: use HOST or HOST:PORT, with an IPv6 address in brackets"
        )
    if not port.isascii() or not port.isdigit() or len(port) > 5 or not 1 <= int(port) <= 65535:
        raise ValueError(f"{port!r} in {text!r} is not a port: use a number from 1 to 65535")
    return f"{host}:{int(port)}"


def _split(text: str) -> tuple[str, str]:
    """The host, with its brackets if it has any, and the port."""
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        # Something other than a port behind the bracket makes the host invalid.
        return (
            (host + bracket, rest[1:]) if rest.startswith(":") else (host + bracket + rest, str(DEFAULT_PORT))
        )
    host, colon, port = text.partition(":")
    return host, port if colon else str(DEFAULT_PORT)


def _is_host(text: str) -> bool:
    if not text.startswith("["):
        return bool(_NAME.fullmatch(text))
    try:
        IPv6Address(text[1:].removesuffix("]"))
    except AddressValueError:
        return False
    return text.endswith("]")
