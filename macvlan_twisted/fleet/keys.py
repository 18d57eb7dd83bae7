"""The keys of a fleet in etcd, and their values: JSON, so that an administrator can read them with etcdctl."""

from __future__ import annotations

import json
from typing import Any

from attrs import frozen

from ..addresses import IPAddress, parse_address
from .interfaces import Claim, ClaimState, Entry, Host, HostRecord, SharedAddress, Wanted

# Remedy of these errors: delete the key with etcdctl, or use another prefix in --fleet.


@frozen
class FleetKeys:
    """:param prefix: of all keys of the fleet, without a slash at its end."""

    prefix: str

    def address(self, lan: str, address: IPAddress) -> str:
        return f"{self.prefix}/lans/{lan}/addresses/{address}"

    def wanted(self, lan: str, address: IPAddress) -> str:
        return f"{self.prefix}/lans/{lan}/wanted/{address}"

    def host(self, name: str) -> str:
        return f"{self.prefix}/hosts/{name}"

    def known(self, name: str) -> str:
        return f"{self.prefix}/known/{name}"

    def parts(self, key: str) -> tuple[str, ...]:
        """The parts of a key behind the prefix; empty if it is not one of the fleet."""
        prefix = f"{self.prefix}/"
        return tuple(key.removeprefix(prefix).split("/")) if key.startswith(prefix) else ()


def encode_entry(entry: Entry) -> bytes:
    if isinstance(entry, SharedAddress):
        holders = sorted(entry.holders, key=lambda host: (host.name, host.instance))
        return _encode({"holders": [_host(each) for each in holders]})
    return _encode(
        {
            "owner": _host(entry.owner),
            "claim": entry.claim_id,
            "state": entry.state.value,
            **({"container": entry.container} if entry.container else {}),
            **({"mac": entry.mac} if entry.mac else {}),
        }
    )


def decode_entry(lan: str, address: str, value: bytes) -> Entry:
    """:raises ValueError: the value is not one of ours."""
    with _Reading(value) as document:
        if "holders" in document:
            holders = frozenset(_read_host(each) for each in document["holders"])
            return SharedAddress(lan, parse_address(address), holders)
        return Claim(
            lan,
            parse_address(address),
            _read_host(document["owner"]),
            str(document["claim"]),
            ClaimState(document["state"]),
            str(document.get("container", "")),
            str(document.get("mac", "")),
        )


def encode_record(record: HostRecord) -> bytes:
    return _encode({"instance": record.host.instance, "session": record.session, "boot_id": record.boot_id})


def decode_record(name: str, value: bytes) -> HostRecord:
    """:raises ValueError: the value is not one of ours."""
    with _Reading(value) as document:
        host = Host(name, str(document["instance"]))
        return HostRecord(host, str(document["session"]), str(document["boot_id"]))


def encode_host(host: Host) -> bytes:
    return _encode({"instance": host.instance})


def decode_host(name: str, value: bytes) -> Host:
    """:raises ValueError: the value is not one of ours."""
    with _Reading(value) as document:
        return Host(name, str(document["instance"]))


def encode_wanted(wanted: Wanted) -> bytes:
    return _encode({"host": _host(wanted.host), "claim": wanted.claim_id})


def decode_wanted(lan: str, address: str, value: bytes) -> Wanted:
    """:raises ValueError: the value is not one of ours."""
    with _Reading(value) as document:
        return Wanted(lan, parse_address(address), _read_host(document["host"]), str(document["claim"]))


def _host(host: Host) -> dict[str, str]:
    return {"host": host.name, "instance": host.instance}


def _read_host(document: Any) -> Host:
    return Host(str(document["host"]), str(document["instance"]))


def _encode(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True).encode()


class _Reading:
    """Turns what a value that is not ours raises into :exc:`ValueError`."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    def __enter__(self) -> dict[str, Any]:
        document = json.loads(self._value)
        if not isinstance(document, dict):
            raise ValueError("not a JSON object")
        return document

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, (KeyError, TypeError, AttributeError)):
            raise ValueError(f"not a value of a fleet: {error!r}") from error
