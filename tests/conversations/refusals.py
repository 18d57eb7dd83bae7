"""Where our service rightly refuses what the recorder accepted.

The recorder said yes to nearly everything. Each row names the conversation, the method, a part of our
message, and why the refusal is better than what happened in the recording. Whatever is refused elsewhere
is a failure, and so is a row that no conversation needs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from .recording import Recording


@frozen
class Refusal:
    """One legitimate refusal.

    With *amendment* the user takes the message to heart: the engine makes the same call once more, with these
    members replaced (None: left out), and the conversation goes on. Without it the engine rolls back.
    """

    conversation: str
    method: str
    message: str
    reason: str
    #: None: both engines.
    engine: str | None = None
    amendment: Mapping[str, Any] | None = field(default=None, eq=False)

    def amended(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The body of the user's second attempt; *amendment* names members by their paths."""
        changed: dict[str, Any] = json.loads(json.dumps(body))
        for path, value in (self.amendment or {}).items():
            *parents, name = path.split("/")
            place = changed
            for each in parents:
                place = place[each]
            if value is None:
                place.pop(name, None)
            else:
                place[name] = value
        return changed


_UNKNOWN_OPTION = "a misspelt option that is silently ignored is found out in production"
_ONE_MAC_TWICE = (
    "two containers with one MAC on one parent: the recorder let it pass, and the container then failed to start "
    'with "set link up: address already in use", which names neither the MAC nor its holder'
)

REFUSALS: tuple[Refusal, ...] = (
    Refusal(
        "b-ipam-remote",
        "IpamDriver.RequestPool",
        "unknown option --ipam-opt foo",
        _UNKNOWN_OPTION,
        amendment={"Options/foo": None},
    ),
    Refusal(
        "b-ipam-remote",
        "IpamDriver.RequestPool",
        "write 10.26.0.0/24",
        "a subnet with host bits: Engine 29 refuses it by itself, and with the same advice",
        engine="docker-20.10",
        amendment={"Pool": "10.26.0.0/24"},
    ),
    Refusal(
        "b3-replay-with-aux-v6-iprange",
        "IpamDriver.RequestPool",
        "unknown option --ipam-opt k",
        _UNKNOWN_OPTION,
        amendment={"Options/k": None},
    ),
    Refusal(
        "d-internal-null-options",
        "NetworkDriver.CreateNetwork",
        "unknown option -o boolish",
        _UNKNOWN_OPTION,
        amendment={"Options/com.docker.network.generic/boolish": None},
    ),
    Refusal(
        "e-static-connect",
        "NetworkDriver.CreateEndpoint",
        "MAC address 02:aa:bb:cc:dd:01 is in use",
        _ONE_MAC_TWICE,
    ),
    Refusal(
        "e2-static-mac-own-cli",
        "NetworkDriver.CreateEndpoint",
        "MAC address 02:aa:bb:cc:dd:01 is in use",
        _ONE_MAC_TWICE,
    ),
)


def refusals_of(recording: Recording) -> frozenset[Refusal]:
    """All refusals that a conversation may show, and has to."""
    return frozenset(
        row
        for row in REFUSALS
        if row.conversation == recording.name and row.engine in (None, recording.engine)
    )


def legitimate_refusal(recording: Recording, method: str, message: str) -> Refusal | None:
    """The row that allows this refusal, if there is one."""
    for row in refusals_of(recording):
        if row.method == method and row.message in message:
            return row
    return None
