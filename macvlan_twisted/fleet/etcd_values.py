"""
Values that etcd's JSON gateway exchanges, without their encoding: keys are text, values bytes, numbers numbers.

The gateway encodes bytes in base64 and 64-bit numbers as strings, and leaves out what is zero or empty
(https://etcd.io/docs/v3.5/dev-guide/api_grpc_gateway/, ``api/etcdserverpb/rpc.proto``).
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Self

from attrs import frozen

Json = Mapping[str, Any]


class EtcdUnavailable(Exception):
    """
    No member of the cluster answered in time, or those that did have no quorum. Try again later.

    :param is_outcome_unknown: whether etcd may have carried out the request, or may do so yet.
    """

    def __init__(self, message: str, *, is_outcome_unknown: bool = False) -> None:
        super().__init__(message)
        self.is_outcome_unknown = is_outcome_unknown


class Refusal(StrEnum):
    """Why a request is refused; the same request is refused again until somebody does something."""

    CREDENTIALS = "credentials"
    """A file with a certificate, a key or a password cannot be used: nothing was sent."""
    AUTH = "auth"
    """The name, the password or the role."""
    NO_SPACE = "no space"
    """The database is as large as its quota: an administrator has to compact and defragment it."""
    NO_LEASE = "no lease"
    """The lease that a key shall be attached to has expired."""
    COMPACTED = "compacted"
    """etcd does not store the revision any more."""
    REPLACED = "replaced"
    """The revision is one of another cluster, or of one that was restored from an older snapshot since."""
    BAD_REQUEST = "bad request"


class EtcdRefused(Exception):
    """
    The request was refused, with this text. Nothing was changed.

    :param revision: with :attr:`Refusal.COMPACTED` the lowest revision that etcd still has, 0 if it did not name it.
    """

    def __init__(self, kind: Refusal, message: str, revision: int = 0) -> None:
        super().__init__(message)
        self.kind = kind
        self.revision = revision


@frozen
class Header:
    """Of every answer. The revision counts the changes of the whole cluster; member lists and leases may lack it (0)."""

    cluster_id: int
    revision: int

    @classmethod
    def decode(cls, answer: Json) -> Self:
        header = answer["header"]
        return cls(int(header["cluster_id"]), int(header.get("revision", 0)))


@frozen
class KeyValue:
    key: str
    value: bytes
    create_revision: int = 0
    mod_revision: int = 0
    lease: int = 0
    """The lease that the key is attached to, 0 for none."""

    @classmethod
    def decode(cls, fields: Json) -> Self:
        return cls(
            decode_key(fields["key"]),
            b64decode(fields.get("value", "")),
            int(fields.get("create_revision", 0)),
            int(fields.get("mod_revision", 0)),
            int(fields.get("lease", 0)),
        )


@frozen
class Event:
    """A key was written, or deleted: then *pair* has but the key and the revision of the deletion."""

    pair: KeyValue
    is_deletion: bool = False

    @classmethod
    def decode(cls, fields: Json) -> Self:
        return cls(KeyValue.decode(fields["kv"]), fields.get("type") == "DELETE")


@frozen
class Get:
    """Read a key, or all keys that begin with it."""

    key: str
    prefix: bool = False

    def encode(self) -> Json:
        return {"request_range": encode_range(self.key, prefix=self.prefix)}


@frozen
class Put:
    key: str
    value: bytes
    lease: int = 0

    def encode(self) -> Json:
        fields = {"key": encode_key(self.key), "value": encode(self.value)}
        return {"request_put": fields | ({"lease": str(self.lease)} if self.lease else {})}


@frozen
class Delete:
    key: str

    def encode(self) -> Json:
        return {"request_delete_range": {"key": encode_key(self.key)}}


Operation = Get | Put | Delete


@frozen
class Absent:
    """The key does not exist."""

    key: str

    def encode(self) -> Json:
        return _compare(self.key, "CREATE", "create_revision", "0")


@frozen
class Unchanged:
    """Nobody has written the key since this revision of it."""

    key: str
    mod_revision: int

    def encode(self) -> Json:
        return _compare(self.key, "MOD", "mod_revision", str(self.mod_revision))


@frozen
class HasValue:
    key: str
    value: bytes

    def encode(self) -> Json:
        return _compare(self.key, "VALUE", "value", encode(self.value))


Comparison = Absent | Unchanged | HasValue


@frozen
class RangeAnswer:
    header: Header
    pairs: tuple[KeyValue, ...]


@frozen
class TxnAnswer:
    """*read* has an item for each operation of the branch that was taken: what a :class:`Get` found, else nothing."""

    header: Header
    succeeded: bool
    read: tuple[tuple[KeyValue, ...], ...]

    @classmethod
    def decode(cls, answer: Json) -> Self:
        read = tuple(
            tuple(map(KeyValue.decode, each.get("response_range", {}).get("kvs", ())))
            for each in answer.get("responses", ())
        )
        return cls(Header.decode(answer), bool(answer.get("succeeded", False)), read)


@frozen
class Lease:
    header: Header
    id: int
    seconds: int
    """As etcd granted them, which may be more than asked for."""


@frozen
class Member:
    name: str
    """Empty before the member has started for the first time."""
    client_urls: tuple[str, ...]


@frozen
class MemberStatus:
    """Of the member that answered."""

    header: Header
    version: str
    has_leader: bool
    database_bytes: int
    errors: tuple[str, ...]
    """Such as the alarm about the database's size."""


def encode(value: bytes) -> str:
    return b64encode(value).decode()


def encode_key(key: str) -> str:
    return encode(key.encode("utf-8", "surrogateescape"))


def decode_key(text: str) -> str:
    return b64decode(text).decode("utf-8", "surrogateescape")


def encode_range(key: str, *, prefix: bool) -> dict[str, Any]:
    """The fields ``key`` and ``range_end``."""
    if not prefix:
        return {"key": encode_key(key)}
    raw = key.encode("utf-8", "surrogateescape")
    # The first key behind all that begin with it: no text in UTF-8 ends with the byte 255.
    return {"key": encode(raw), "range_end": encode(raw[:-1] + bytes([raw[-1] + 1]))}


def _compare(key: str, target: str, field: str, value: str) -> Json:
    return {"key": encode_key(key), "target": target, "result": "EQUAL", field: value}
