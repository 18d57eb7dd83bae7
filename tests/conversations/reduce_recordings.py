"""Reduce raw engine recordings to what a replay needs.

    python -m tests.conversations.reduce_recordings SOURCE TARGET

SOURCE and TARGET each hold one directory per engine (``docker-20.10``, ``docker-29``) with one
JSON-lines file per conversation. The raw files were written by a recording plugin and carry much that
only its author needs (process ids, the ``ip`` commands it ran, dockerd's log). Kept is what an engine
did and what it was told:

* a head line: the conversation's name, the engine and the request headers, in order, that every call
  carried;
* ``call``: when (``at``, seconds from the start), how long the engine waited (``took``), on which
  connection (``conn``, numbered through the whole file), the exact body, and the recorder's reply.
  ``fault`` says that the recorder was told to answer wrongly, and how; ``hung_up`` that the engine gave up
  waiting; ``reconstructed`` that the recorder was killed before it could write the call down, and that the
  call is inferred from what came after. Where there was no HTTP library between dockerd and the recorder a
  call also has its ``raw`` bytes;
* ``plugin``: ``start``, ``stop`` (SIGTERM) or ``killed`` (SIGKILL); ``dockerd``: ``start``, ``stop`` or
  ``killed``;
* ``open``/``close``: a connection that was opened without a request, or closed by the engine;
* ``note``: what the person at the keyboard did, for whoever reads along.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]

#: A conversation's headers if nothing was said in it; ``null`` stands for the body's own length.
USUAL_HEADERS: list[list[str | None]] = [
    ["Host", ""],
    ["User-Agent", "Go-http-client/1.1"],
    ["Content-Length", None],
    ["Accept", "application/vnd.docker.plugins.v1.2+json"],
]

#: Places on the machine on which the recordings were made; those that mean something to Docker are kept.
FOREIGN_PATHS = re.compile(
    r"(?:unix://)?(?<![\w/:])/(?!(?:run|etc|usr/lib|usr/share|var/run)/docker)(?:[\w.-]+/)+[\w.-]+"
)

NOTES_WORTH_KEEPING = ("$ docker", "###", "capabilities override", "dockerd NOT up")
#: These commands make an engine call nothing at all.
NOTES_WITHOUT_CALLS = tuple(
    f"$ docker {command}"
    for command in (
        "exec",
        "info",
        "inspect",
        "network inspect",
        "network ls",
        "plugin ls",
        "port",
        "ps",
        "service ps",
        "stats",
        "version",
    )
)


def reduce_rows(conversation: str, engine: str, raw: Iterable[Row]) -> Iterator[Row]:
    """Yield the reduced lines of one conversation, the head first and then in order of start time."""
    rows = sorted(raw, key=lambda row: float(row["t"]))
    calls = [row for row in rows if row["ev"] == "call"] or list(_calls_in_raw_bytes(rows))
    usual = _headers(calls[0]) if calls else USUAL_HEADERS
    yield {"conversation": conversation, "engine": engine, "headers": usual}
    reducer = _Reducer(start=float(rows[0]["t"]), usual_headers=usual, calls=calls)
    yield from reducer.reduce(rows)


class _Reducer:
    """Walks through one conversation, remembering which plugin process is the one that is spoken to."""

    def __init__(self, start: float, usual_headers: list[list[str | None]], calls: list[Row]) -> None:
        self._start = start
        self._usual_headers = usual_headers
        self._connections: dict[tuple[int, int], int] = {}
        self._process = 0
        self._running: dict[str, int] = {}
        self._process_of_pid: dict[int, int] = {}
        self._talkative = {self._connection_key(row) for row in calls}
        self._sockets: dict[int, str] = {}
        self._last_created: Row | None = None
        self._last_call: Row | None = None

    def reduce(self, rows: list[Row]) -> Iterator[Row]:
        for index, row in enumerate(rows):
            at = round(float(row["t"]) - self._start, 4)
            if row["ev"] == "call":
                yield self._call(at, row)
            elif row["ev"] == "plugin-start":
                yield from self._plugin_start(at, row, rows[index + 1 :])
            elif row["ev"] == "plugin-stop":
                self._running = {k: v for k, v in self._running.items() if v != row["plugin_pid"]}
                yield {"at": at, "plugin": "stop", "name": _plugin_name(self._sockets[row["plugin_pid"]])}
            elif row["ev"] in ("conn-open", "conn-close"):
                yield from self._connection(at, row)
            elif row["text"] == "raw bytes":
                for call in _calls_in_raw_bytes(rows):
                    yield self._call(round(float(call["t"]) - self._start, 4), call)
            else:
                yield from _note(at, row)

    @staticmethod
    def _connection_key(row: Row) -> tuple[int, int]:
        return int(row["plugin_pid"]), int(row["conn"])

    def _connection_number(self, row: Row) -> int:
        # A managed plugin is process 1 of its own PID namespace each time, so the pid alone tells nothing.
        process = self._process_of_pid.get(int(row["plugin_pid"]), 0)
        return self._connections.setdefault((process, int(row["conn"])), len(self._connections) + 1)

    def _plugin_start(self, at: float, row: Row, later: list[Row]) -> Iterator[Row]:
        pid, socket = int(row["plugin_pid"]), str(row["socket"])
        if socket in self._running:
            yield from self._call_lost_with_the_plugin(at, later)
            yield {"at": at, "plugin": "killed", "name": _plugin_name(socket)}
        self._process += 1
        self._running[socket] = pid
        self._process_of_pid[pid] = self._process
        self._sockets[pid] = socket
        yield {"at": at, "plugin": "start", "name": _plugin_name(socket)}

    def _call_lost_with_the_plugin(self, at: float, later: list[Row]) -> Iterator[Row]:
        """A killed recorder wrote nothing about the call it was serving; the engine's retry betrays it."""
        following = next((row for row in later if row["ev"] == "call"), None)
        if following is None or following["body_raw"] or following["call"] != "NetworkDriver.Join":
            return
        assert self._last_created is not None
        assert self._last_call is not None
        created = json.loads(self._last_created["body_raw"])
        body = {
            "NetworkID": created["NetworkID"],
            "EndpointID": created["EndpointID"],
            "SandboxKey": "/var/run/docker/netns/000000000000",
            "Options": created["Options"],
        }
        began = round(float(self._last_call["t"]) - self._start + self._last_call["ms"] / 1000 + 0.001, 4)
        yield {
            "at": began,
            "took": round(at - began, 4),
            "conn": self._connection_number(self._last_call),
            "call": following["call"],
            "body": json.dumps(body, separators=(",", ":")) + "\n",
            "fault": "killed",
            "reconstructed": True,
        }

    def _call(self, at: float, row: Row) -> Row:
        if row["call"] == "NetworkDriver.CreateEndpoint" and row["body_raw"]:
            self._last_created = row
        self._last_call = row
        call: Row = {
            "at": at,
            "took": round(row["ms"] / 1000, 4),
            "conn": self._connection_number(row),
            "call": row["call"],
            "body": row["body_raw"],
        }
        if row["reply"] is not None:
            call["reply"] = row["reply"]
        if row["status"] != 200:
            call["status"] = row["status"]
        if row["fault"] is not None:
            call["fault"] = _kind_of_fault(row["fault"])
        if row["write_error"]:
            if call.get("fault") == "slow":
                call["hung_up"] = True
            else:
                call["took"] = (
                    0.0  # The engine had its reply; what failed was the recorder's closing of a chunked one.
                )
        if _headers(row) != self._usual_headers:
            call["headers"] = _headers(row)
        if "raw" in row:
            call["raw"] = row["raw"]
        return call

    def _connection(self, at: float, row: Row) -> Iterator[Row]:
        if row["ev"] == "conn-close":
            yield {"at": at, "close": self._connection_number(row)}
        elif self._connection_key(row) not in self._talkative:
            yield {"at": at, "open": self._connection_number(row)}


def _plugin_name(socket: str) -> str:
    return socket.rpartition("/")[2].removesuffix(".sock")


def _headers(row: Row) -> list[list[str | None]]:
    """The call's headers; the length is left out, it is that of the body (and of another path, in a Join)."""
    return [[name, None if name == "Content-Length" else value] for name, value in row["headers"]]


def _kind_of_fault(fault: Row) -> str:
    """What the recorder was told to do instead of answering: the replayed service knows nothing of it."""
    for key, kind in (
        ("close", "drop"),
        ("delay", "slow"),
        ("status", "status"),
        ("err", "error"),
        ("raw", "raw"),
    ):
        if key in fault:
            return kind
    return "reply"


def _note(at: float, row: Row) -> Iterator[Row]:
    text = str(row["text"])
    if text in ("dockerd start", "dockerd stop"):
        event: Row = {"at": at, "dockerd": text.removeprefix("dockerd ")}
        if row.get("signal") == 9:
            event["dockerd"] = "killed"
        if "--live-restore" in row.get("args", ()):
            event["live_restore"] = True
        yield event
    elif text.startswith(NOTES_WORTH_KEEPING) and not text.startswith(NOTES_WITHOUT_CALLS):
        more = " " + json.dumps(row["caps"]) if "caps" in row else ""
        yield {"at": at, "note": _without_foreign_paths(text + more)}
    elif text.startswith("= docker") and row["rc"]:
        message = next((line for line in row["stderr"].splitlines() if "Error" in line), "")
        if message:
            yield {"at": at, "note": _without_foreign_paths(f"= {row['rc']}: {message}")[:220]}


def _without_foreign_paths(text: str) -> str:
    return FOREIGN_PATHS.sub("(...)", text)


def _calls_in_raw_bytes(rows: list[Row]) -> Iterator[Row]:
    """The one recording without an HTTP library in between has its calls as bytes in a note."""
    for row in rows:
        if row["ev"] != "note" or "raw" not in row:
            continue
        for number, (_, text) in enumerate(row["raw"], start=1):
            head, _, body = text.partition("\r\n\r\n")
            request_line, *header_lines = head.split("\r\n")
            yield {
                "t": float(row["t"]) + number / 1000,
                "ms": 0.5,
                "plugin_pid": 0,
                "conn": 1,
                "call": request_line.split(" ")[1].removeprefix("/"),
                "headers": [line.split(": ", 1) for line in header_lines],
                "body_raw": body,
                "reply": None,
                "status": 200,
                "fault": None,
                "write_error": None,
                "raw": text,
            }


def reduce_file(source: Path, target: Path) -> None:
    """Reduce one conversation; the target file has the same name."""
    with source.open(encoding="utf-8") as lines:
        reduced = list(reduce_rows(source.stem, source.parent.name, (json.loads(line) for line in lines)))
    with target.open("w", encoding="utf-8") as out:
        for row in reduced:
            out.write(json.dumps(row, separators=(",", ":"), ensure_ascii=True) + "\n")


def main() -> None:
    """Reduce every conversation of every engine below SOURCE."""
    parser = argparse.ArgumentParser(description="Reduce raw engine recordings to what a replay needs.")
    parser.add_argument("source", type=Path, help="directory with one directory of raw recordings per engine")
    parser.add_argument("target", type=Path, help="directory to write the reduced recordings to")
    arguments = parser.parse_args()
    for source in sorted(arguments.source.glob("docker-*/*.jsonl")):
        target = arguments.target / source.parent.name / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        reduce_file(source, target)


if __name__ == "__main__":
    main()
