"""A recorded conversation: the events of one engine and the plugin that recorded it, in order.

``recordings/`` has one directory for each engine and one JSON-lines file for each conversation:

* a head line: the conversation's name, the engine, and the headers, in order, that every request carried;
* ``call``: when (``at``, seconds from the start), how long the engine waited (``took``), on which connection (``conn``),
  the exact body, and the recorder's reply. ``fault`` says that the recorder was set to reply wrongly, and how;
  ``hung_up`` that the engine stopped waiting; ``reconstructed`` that the recorder was killed before it could write the
  call down. Where no HTTP library stood between dockerd and the recorder, ``raw`` has the bytes;
* ``plugin``: ``start``, ``stop`` (SIGTERM) or ``killed`` (SIGKILL); ``dockerd``: the same;
* ``open``/``close``: a connection opened without a request, or closed by the engine;
* ``note``: what the person at the keyboard did.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import field, frozen

RECORDINGS = Path(__file__).parent / "recordings"

#: Methods that engines call with ``Content-Length: 0``. Any other call with an empty body is an engine's
#: retry after a broken connection, whose body was already consumed.
BODYLESS = frozenset(
    {
        "Plugin.Activate",
        "NetworkDriver.GetCapabilities",
        "IpamDriver.GetCapabilities",
        "IpamDriver.GetDefaultAddressSpaces",
    }
)

Headers = tuple[tuple[str, str | None], ...]


@frozen
class Call:
    """One request as the engine made it, and what the recorder answered."""

    number: int
    at: float
    took: float
    connection: int
    method: str
    body_text: str
    headers: Headers
    reply: Any = None
    status: int = 200
    fault: str | None = None
    hung_up: bool = False
    raw: str | None = None

    @property
    def ended(self) -> float:
        """When the engine had its reply, or gave up."""
        return self.at + self.took

    @property
    def body(self) -> dict[str, Any]:
        """The request, parsed; empty for the calls that come without one."""
        return json.loads(self.body_text) if self.body_text else {}

    @property
    def lost_its_body(self) -> bool:
        """An engine's retry without a body, which names neither network nor endpoint."""
        return not self.body_text and self.method not in BODYLESS

    @property
    def recorder_accepted(self) -> bool:
        """Whether the recorder replied with success."""
        if self.status != 200 or self.fault in ("drop", "killed", "raw"):
            return False
        return not (isinstance(self.reply, dict) and (self.reply.get("Err") or self.reply.get("Error")))

    def __str__(self) -> str:
        return f"#{self.number} {self.method} {self.body_text.strip()[:160]}"


@frozen
class PluginEvent:
    """The plugin was started, stopped (SIGTERM) or killed (SIGKILL)."""

    at: float
    what: str
    name: str


@frozen
class DockerdEvent:
    """dockerd was started, stopped (SIGTERM) or killed (SIGKILL)."""

    at: float
    what: str
    live_restore: bool = False


@frozen
class ConnectionEvent:
    """The engine opened a connection without a request, or closed one."""

    at: float
    what: str
    connection: int


@frozen
class Note:
    """What the person at the keyboard did or saw."""

    at: float
    text: str


Event = Call | PluginEvent | DockerdEvent | ConnectionEvent | Note


@frozen
class Recording:
    """One conversation of one engine."""

    engine: str
    name: str
    events: tuple[Event, ...] = field(repr=False)

    @property
    def calls(self) -> tuple[Call, ...]:
        return tuple(event for event in self.events if isinstance(event, Call))

    def __str__(self) -> str:
        return f"{self.engine}/{self.name}"


def all_recordings() -> list[Path]:
    """The files of all conversations."""
    return sorted(RECORDINGS.glob("docker-*/*.jsonl"))


def load(path: Path) -> Recording:
    """Read one conversation."""
    with path.open(encoding="utf-8") as lines:
        head = json.loads(next(lines))
        events = tuple(_events(lines, _headers(head["headers"])))
    return Recording(engine=head["engine"], name=head["conversation"], events=events)


def _headers(rows: list[list[str | None]]) -> Headers:
    return tuple((str(name), value) for name, value in rows)


def _events(lines: Iterator[str], usual_headers: Headers) -> Iterator[Event]:
    number = 0
    for line in lines:
        row = json.loads(line)
        at = float(row["at"])
        if "call" in row:
            number += 1
            yield Call(
                number=number,
                at=at,
                took=float(row["took"]),
                connection=int(row["conn"]),
                method=row["call"],
                body_text=row["body"],
                headers=_headers(row["headers"]) if "headers" in row else usual_headers,
                reply=row.get("reply"),
                status=int(row.get("status", 200)),
                fault=row.get("fault"),
                hung_up=bool(row.get("hung_up")),
                raw=row.get("raw"),
            )
        elif "plugin" in row:
            yield PluginEvent(at, row["plugin"], row["name"])
        elif "dockerd" in row:
            yield DockerdEvent(at, row["dockerd"], bool(row.get("live_restore")))
        elif "note" in row:
            yield Note(at, row["note"])
        else:
            what = "open" if "open" in row else "close"
            yield ConnectionEvent(at, what, int(row[what]))
