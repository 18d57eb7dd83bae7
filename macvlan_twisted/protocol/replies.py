"""How each answer is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

CONTENT_TYPE = b"application/vnd.docker.plugins.v1.2+json"


def as_json(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body).encode() + b"\n"
