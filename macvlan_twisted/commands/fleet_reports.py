"""What ``macvlan-twisted fleet status``, ``hosts``, ``addresses`` and ``export`` say of a snapshot, as documents and as lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..fleet.interfaces import Claim, ClaimState, Entry, Host, SharedAddress, Snapshot
from ..fleet.own_claims import described

Json = dict[str, Any]

SHARED = "shared"
_COUNTED = (*(state.value for state in ClaimState), SHARED)
FORMAT = 1
"""Of :func:`export_document`; a new one when a field changes its meaning."""


def by_address(entry: Entry) -> tuple[str, int, int]:
    """The order in which addresses are listed."""
    return entry.lan, entry.address.version, int(entry.address)


def hosts_of(entry: Entry) -> frozenset[Host]:
    return entry.holders if isinstance(entry, SharedAddress) else frozenset({entry.owner})


# Documents.


def status_document(snapshot: Snapshot, own_name: str) -> Json:
    """:param own_name: of the host on which the command runs."""
    hosts = host_documents(snapshot)
    lans = sorted({entry.lan for entry in snapshot.entries})
    return {
        "cluster": snapshot.cluster,
        "revision": snapshot.revision,
        "known": len(snapshot.known),
        "alive": len(snapshot.alive),
        "lans": {lan: _counts(entry for entry in snapshot.entries if entry.lan == lan) for lan in lans},
        "host": next((host for host in hosts if host["name"] == own_name), None),
        "findings": list(findings(snapshot)),
    }


def host_documents(snapshot: Snapshot) -> list[Json]:
    """All hosts that the store mentions, by name."""
    alive = {record.host.name: record.host for record in snapshot.alive}
    known = {host.name: host for host in snapshot.known}
    owners = {host.name for entry in snapshot.entries for host in hosts_of(entry)}
    return [
        {
            "name": name,
            "alive": name in alive,
            "known": name in known,
            "instance": now.instance if (now := alive.get(name) or known.get(name)) else None,
            "addresses": _counts(
                entry for entry in snapshot.entries if any(host.name == name for host in hosts_of(entry))
            ),
        }
        for name in sorted({*alive, *known, *owners})
    ]


def address_documents(snapshot: Snapshot, lan: str | None = None, host: str | None = None) -> list[Json]:
    """:param lan: only of this LAN. :param host: only those that the host of this name has or shares."""
    return [
        _entry_document(entry)
        for entry in sorted(snapshot.entries, key=by_address)
        if lan in (None, entry.lan) and (host is None or host in {each.name for each in hosts_of(entry)})
    ]


def export_document(snapshot: Snapshot) -> Json:
    """Everything."""
    return {
        "format": FORMAT,
        "cluster": snapshot.cluster,
        "revision": snapshot.revision,
        "known": [_host_document(host) for host in sorted(snapshot.known, key=_by_name)],
        "alive": [
            {**_host_document(record.host), "session": record.session, "boot_id": record.boot_id}
            for record in sorted(snapshot.alive, key=lambda record: record.host.name)
        ],
        "addresses": address_documents(snapshot),
        "wanted": [
            {"lan": each.lan, "address": str(each.address), **_host_document(each.host)}
            for each in snapshot.wanted
        ],
    }


def _entry_document(entry: Entry) -> Json:
    place = {"lan": entry.lan, "address": str(entry.address)}
    if isinstance(entry, SharedAddress):
        return {**place, "holders": [_host_document(host) for host in sorted(entry.holders, key=_by_name)]}
    return {
        **place,
        "owner": _host_document(entry.owner),
        "claim": entry.claim_id,
        "state": entry.state.value,
        "container": entry.container,
        "mac": entry.mac,
    }


def _host_document(host: Host) -> Json:
    return {"host": host.name, "instance": host.instance}


def _by_name(host: Host) -> tuple[str, str]:
    return host.name, host.instance


def _counts(entries: Iterable[Entry]) -> Json:
    counts = dict.fromkeys(_COUNTED, 0)
    for entry in entries:
        counts[SHARED if isinstance(entry, SharedAddress) else entry.state.value] += 1
    return counts


# What an administrator should look at.


def findings(snapshot: Snapshot) -> Iterator[str]:
    """What is in dispute or left behind, each with a remedy, as far as the store shows it."""
    yield from _left_behind(snapshot)
    yield from _used_macs(snapshot)
    entries = {entry.key: entry for entry in snapshot.entries}
    for wanted in snapshot.wanted:
        entry = entries.get((wanted.lan, wanted.address))
        if entry is not None:
            yield (
                f"host {wanted.host.name} asks for address {wanted.address}, which belongs to {described(entry)}: if this goes "
                "on, look at the logs of both hosts"
            )


def _left_behind(snapshot: Snapshot) -> Iterator[str]:
    now = {host.name: host for host in (*snapshot.known, *(record.host for record in snapshot.alive))}
    left: dict[Host, int] = {}
    for entry in snapshot.entries:
        for host in hosts_of(entry):
            if now.get(host.name) != host:
                left[host] = left.get(host, 0) + 1
    for host in sorted(left, key=_by_name):
        if host.name in now:
            yield (
                f"host {host.name} has addresses of its former instance {host.instance} ({left[host]}), whose state was lost or "
                f"replaced: run macvlan-twisted fleet forget {host.name} --former"
            )
        else:
            yield (
                f"host {host.name} has addresses ({left[host]}), but is not known in the fleet: start the plugin there, or if the "
                f"host is gone for good, run macvlan-twisted fleet forget {host.name}"
            )


def _used_macs(snapshot: Snapshot) -> Iterator[str]:
    users: dict[tuple[str, str], dict[str, Claim]] = {}
    for entry in sorted(snapshot.entries, key=by_address):
        if isinstance(entry, Claim) and entry.state is ClaimState.USED and entry.mac:
            users.setdefault((entry.lan, entry.mac), {}).setdefault(entry.owner.name, entry)
    for (_, mac), claims in users.items():
        if len(claims) > 1:
            who = " and ".join(f"{described(claim)} ({claim.address})" for claim in claims.values())
            yield (
                f"MAC {mac} is in use by {who}: give one of the containers another name, or another MAC with --mac-address"
            )


# Lines.


def status_lines(document: Json, fleet: str, own_name: str) -> Iterator[str]:
    """:param fleet: where the store is."""
    yield f"etcd: {fleet}, cluster {document['cluster']}, revision {document['revision']}"
    yield f"hosts: {document['known']} known, {document['alive']} alive"
    for lan, counts in document["lans"].items():
        yield f"LAN {lan}: {_counted(counts)}"
    host = document["host"]
    if host is None:
        yield f"this host: {own_name}, which is not in the fleet"
    else:
        yield f"this host: {own_name}, {_condition(host)}, {_counted(host['addresses'])}"
    for finding in document["findings"]:
        yield f"attention: {finding}"


def host_lines(documents: Sequence[Json]) -> Iterator[str]:
    return _table(
        ("HOST", "CONDITION", "INSTANCE", *(each.upper() for each in _COUNTED)),
        (
            (
                each["name"],
                _condition(each),
                each["instance"] or "-",
                *(str(each["addresses"][state]) for state in _COUNTED),
            )
            for each in documents
        ),
    )


def address_lines(documents: Sequence[Json]) -> Iterator[str]:
    return _table(
        ("ADDRESS", "LAN", "HOST", "STATE", "CONTAINER", "MAC"),
        (
            (
                each["address"],
                each["lan"],
                ",".join(host["host"] for host in each.get("holders") or [each["owner"]]),
                each.get("state", SHARED),
                each.get("container") or "-",
                each.get("mac") or "-",
            )
            for each in documents
        ),
    )


def _condition(host: Json) -> str:
    if host["alive"]:
        return "alive"
    return "silent" if host["known"] else "unknown"


def _counted(counts: Json) -> str:
    return ", ".join(f"{counts[each]} {each}" for each in _COUNTED)


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Columns that are as wide as they need to be."""
    lines = [titles, *rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(titles))]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
