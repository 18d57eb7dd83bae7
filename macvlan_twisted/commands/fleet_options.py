"""The command line of ``macvlan-twisted fleet``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

_CONNECTION = {
    "fleet": "The plugin's --fleet: the etcd cluster in which the hosts claim addresses.",
    "fleet-host": "The plugin's --fleet-host: the name of this host in the fleet.",
    "fleet-ca": "The plugin's --fleet-ca.",
    "fleet-cert": "The plugin's --fleet-cert.",
    "fleet-key": "The plugin's --fleet-key.",
    "fleet-password-file": "The plugin's --fleet-password-file.",
}
_STATE = {
    "state-dir": "The plugin's --state-dir.",
    "runtime-dir": "The plugin's --runtime-dir.",
}
SHARED = {
    **{f"fleet {each}": _CONNECTION for each in ("status", "hosts", "addresses", "export", "forget")},
    **{f"fleet {each}": {**_STATE, **_CONNECTION} for each in ("leave", "import")},
}
"""Options of the service that each command has, too, and what they mean to it."""

Share = Callable[[argparse.ArgumentParser, str], None]


def add_commands(commands: Any, share: Share) -> None:
    """
    :param commands: where argparse collects the commands of the program.
    :param share: adds the options of :data:`SHARED` to a command.
    """
    fleet = commands.add_parser(
        "fleet",
        help="look at the fleet of hosts that share addresses, and change who belongs to it",
        description="Look at the fleet of hosts that share the LAN's addresses, and change who belongs to it.",
    )
    inner = fleet.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)

    def add(name: str, summary: str, description: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = inner.add_parser(name, help=summary, description=description)
        parser.set_defaults(command=f"fleet {name}")
        return parser

    def add_json(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="Print JSON instead of text.")

    status = add(
        "status",
        "show the fleet, this host's part in it, and what needs attention",
        "Show the store and its revision, how many hosts are known and alive, how many addresses each LAN has in which state, "
        "what this host has, and what needs attention: addresses that were left behind or are in dispute.",
    )
    hosts = add(
        "hosts",
        "list the hosts of the fleet",
        "List the hosts of the fleet. A host is alive while its plugin is connected to etcd, and silent otherwise. A host that has "
        "addresses, but no record, is unknown.",
    )
    addresses = add(
        "addresses",
        "list the addresses that hosts have claimed",
        "List the addresses that hosts have claimed: used by a container, resting (left to the container that released them a short "
        "time ago), in reserve for the next containers, or shared (gateways and auxiliary addresses).",
    )
    addresses.add_argument("--lan", metavar="NAME", help="Only the addresses of this LAN.")
    addresses.add_argument("--host", metavar="NAME", help="Only the addresses of this host.")
    for parser in (status, hosts, addresses):
        add_json(parser)
    export = add(
        "export",
        "print everything that the fleet has stored, as JSON",
        "Print everything that the fleet has stored, as it was at one moment, as JSON.",
    )
    forgetting = add(
        "forget",
        "free the addresses of a host that never comes back",
        "Free the addresses of a host that never comes back, and forget the host. Each address is probed on the LAN first, and "
        "stays if a station answers for it. The command refuses while the host is alive.",
    )
    forgetting.add_argument("host", metavar="HOST", help="The host's --fleet-host.")
    forgetting.add_argument(
        "--parent",
        action="append",
        default=[],
        metavar="LINK",
        help="The link of this host that is on the LAN of the addresses; LAN=LINK, repeated, if they are on several LANs. Default: the "
        "host interface, for the LAN default.",
    )
    forgetting.add_argument(
        "--no-probe",
        action="store_true",
        help="Do not probe: the host and its containers are switched off, or on another LAN.",
    )
    forgetting.add_argument(
        "--former",
        action="store_true",
        help="Free only what belongs to earlier instances of the host, whose state was lost or replaced. The host may be alive, and is not "
        "forgotten.",
    )
    forgetting.add_argument("--yes", action="store_true", help="Do not ask for confirmation.")
    leaving = add(
        "leave",
        "release all addresses of this host, which leaves the fleet",
        "Release all addresses of this host, which leaves the fleet for good. The plugin must be stopped.",
    )
    leaving.add_argument(
        "--force", action="store_true", help="Release them even if containers on this host have addresses."
    )
    importing = add(
        "import",
        "claim the addresses that this host had before it joined",
        "Compare the addresses that containers on this host have with those that the fleet has claimed, and claim them. If another "
        "host uses one of them, nothing is claimed, and the exit status is 1. The plugin must be stopped. A plugin that starts with "
        "--fleet claims its addresses by itself; this command checks them beforehand.",
    )
    for parser in (forgetting, leaving, importing):
        parser.add_argument("--dry-run", action="store_true", help="Only print what would be done.")
    for parser in (status, hosts, addresses, export, forgetting, leaving, importing):
        share(parser, parser.get_default("command"))
