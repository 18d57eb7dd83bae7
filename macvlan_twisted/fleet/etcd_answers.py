"""
What etcd's JSON gateway answers: an object, an error, or a stream of both.

The gateway's HTTP statuses differ between releases; gRPC's codes (https://grpc.io/docs/guides/status-codes/) and etcd's texts
(``api/v3rpc/rpctypes/error.go``) do not.
"""

from __future__ import annotations

import json
from typing import Any

from .etcd_values import EtcdRefused, Json, Refusal

_PERMISSION_DENIED, _RESOURCE_EXHAUSTED, _UNAUTHENTICATED = 7, 8, 16
_CANNOT_SERVE = {1, 2, 4, 13, 14, 15}
"""Cancelled, unknown (3.4 for a deadline), deadline exceeded, internal, unavailable, data loss."""
_STALE_TOKENS = ("invalid auth token", "user name is empty", "revision of auth store is old")
"""An administrator may enable authentication at any time: a request without a name is refused then."""
_AUTH_TEXTS = ("authentication failed", "permission denied", "user name not found")


class CannotServe(Exception):
    """
    A member cannot serve a request, another one perhaps can.

    :param was_sent: whether the member may have got the request, and may carry it out.
    """

    def __init__(self, reason: str, *, was_sent: bool = True) -> None:
        super().__init__(reason)
        self.was_sent = was_sent


class StaleToken(EtcdRefused):
    """A new token is needed."""

    def __init__(self, message: str) -> None:
        super().__init__(Refusal.AUTH, message)


def decode_answer(status: int, raw: bytes) -> Json:
    """
    :param raw: the whole body.
    :raises CannotServe: :raises EtcdRefused: with etcd's message.
    """
    try:
        answer = json.loads(raw)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        text = raw[:100].decode("utf-8", "replace").strip()
        raise CannotServe(f"answers with status {status} and {text!r}, not as etcd 3.4 or later does")
    return decode_message(answer) if status == 200 else _raise_error(answer)


def decode_message(message: Json) -> Json:
    """
    One message of a stream, whose content is below ``result``; a plain answer is returned as it is.

    :raises CannotServe: :raises EtcdRefused:
    """
    if "error" in message:
        _raise_error(message)
    result: Json = message.get("result", message)
    if "header" not in result:
        raise CannotServe("answers without a header, not as etcd 3.4 or later does")
    return result


def _raise_error(answer: Json) -> Json:
    # In streams the error is an object; in 3.4 a text beside the message and the code.
    error: Json = answer["error"] if isinstance(answer.get("error"), dict) else answer
    raise error_of(int(error.get("code", error.get("grpc_code", 2))), str(error.get("message", "")))


def error_of(code: int, message: str) -> CannotServe | EtcdRefused:
    """:param code: of gRPC."""
    if code == _UNAUTHENTICATED or any(text in message for text in _STALE_TOKENS):
        return StaleToken(message)
    if code == _PERMISSION_DENIED or any(text in message for text in _AUTH_TEXTS):
        return EtcdRefused(Refusal.AUTH, message)
    if "database space exceeded" in message:
        return EtcdRefused(Refusal.NO_SPACE, message)
    if "lease not found" in message:
        return EtcdRefused(Refusal.NO_LEASE, message)
    if "has been compacted" in message:
        return EtcdRefused(Refusal.COMPACTED, message)
    if code in _CANNOT_SERVE or code == _RESOURCE_EXHAUSTED:  # the latter: too many requests
        return CannotServe(message)
    return EtcdRefused(Refusal.BAD_REQUEST, message)


def watch_refusal(result: Json) -> CannotServe | EtcdRefused | None:
    """The reason why etcd ended a watch, if this message of it says so."""
    if not result.get("canceled"):
        return None
    if "compact_revision" in result:
        oldest = int(result["compact_revision"])
        return EtcdRefused(Refusal.COMPACTED, f"revisions before {oldest} have been compacted", oldest)
    # Since 3.4 with the text of a gRPC error, and not its code.
    return error_of(2, str(result.get("cancel_reason", "the watch was cancelled")))


class JsonLines:
    """Splits a stream of JSON objects, of which each stands on a line; the last line may have no end."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []

    def feed(self, data: bytes) -> list[Any]:
        """:raises ValueError: a line is no JSON."""
        *complete, rest = data.split(b"\n")
        if complete:
            complete[0] = b"".join(self._rest) + complete[0]
            self._rest = []
        self._rest.append(rest)
        return [json.loads(line) for line in complete if line.strip()]

    def finish(self) -> list[Any]:
        """What is behind the last line. :raises ValueError: it is no JSON, such as half an object."""
        return self.feed(b"\n")
