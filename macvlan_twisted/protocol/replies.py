"""How each answer is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

CONTENT_TYPE = b"application/vnd.docker.plugins.v1.2+json"


def as_json(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body).encode() + b"\n"


def with_head(request: Any, status: int, body: bytes, is_last: bool = False) -> bytes:
    """
    Make the head of a reply by twisted.web; *body* is still to be written.

    :param is_last: whether the connection is to end with it.
    """
    request.setResponseCode(status)
    request.setHeader(b"Content-Type", CONTENT_TYPE)
    if is_last:
        request.setHeader(b"Connection", b"close")
    # Chunked replies cost the engine a new connection a call.
    request.setHeader(b"Content-Length", b"%d" % len(body))
    return body
