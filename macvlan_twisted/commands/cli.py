"""The command line of ``macvlan-twisted``, made from the service's own options where they are the same."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from .._version import VERSION_TEXT
from ..config import OPTIONS, Config
from ..errors import MacvlanError
from . import fleet_options, purge, stale_sandboxes

SHARED = {
    "purge": {
        "plugin-name": "The plugin's --plugin-name: the name of the driver, and of its socket.",
        "plugin-dir": "The plugin's --plugin-dir.",
        "runtime-dir": "The plugin's --runtime-dir.",
        "docker-host": "The socket of Docker Engine's API, to find out whether containers run on networks of the plugin. With the value none, Docker is not asked.",
    },
    "sandboxes": {
        "docker-host": "The socket of Docker Engine's API, to find out which namespaces it uses. With the value none, Docker is not asked."
    },
    **fleet_options.SHARED,
}
"""Options of the service that a command has, too, and what they mean to it; their environment variables count as well."""
ALIASES = {"leave": "purge"}
"""Earlier names of commands. Help and reference leave them out."""


def main(arguments: Sequence[str]) -> int:
    """
    :return: the exit status: 0 all done, 1 something could not be done or was refused; 2 is argparse's.
    """
    parser = make_parser()
    parsed = parser.parse_args([*(ALIASES.get(each, each) for each in arguments[:1]), *arguments[1:]])
    if parsed.command is None:
        parser.print_help()
        return 2
    try:
        config = Config.from_texts(
            [
                (name, value)
                for name in SHARED[parsed.command]
                if (value := getattr(parsed, name.replace("-", "_"))) is not None
            ],
            os.environ,
        )
    except ValueError as error:
        parser.error(str(error))
    try:
        return run(parsed, config)
    except MacvlanError as error:
        print(f"macvlan-twisted: {error}", file=sys.stderr)
    except OSError as error:  # most likely somebody who is not root, and may not even look
        print(f"macvlan-twisted: {error.filename or parsed.command}: {error.strerror}", file=sys.stderr)
    except KeyboardInterrupt:
        print("macvlan-twisted: interrupted", file=sys.stderr)
    return 1


def run(parsed: argparse.Namespace, config: Config) -> int:
    from ..netlink.rtnetlink import NetlinkKernel

    if parsed.command == "sandboxes":
        return stale_sandboxes.run(config, Path(parsed.netns_dir), parsed.remove, parsed.engine_is_gone)
    if parsed.command in fleet_options.SHARED:
        from . import fleet

        return fleet.run(parsed, config, NetlinkKernel(), partial(_agrees, "Free these addresses?"))
    directories = [Path(each) for each in parsed.state_dir or [config.state_dir]]
    return purge.run(
        config,
        NetlinkKernel(),
        directories,
        every_instance=parsed.every_instance,
        dry_run=parsed.dry_run,
        force=parsed.force,
        is_agreed=parsed.yes or _agrees,
    )


def _agrees(question: str = "Remove all of that?") -> bool:
    if not sys.stdin.isatty():
        print(
            "cannot ask for confirmation, since this is no terminal: add --yes, or --dry-run to print what would be done",
            file=sys.stderr,
        )
        return False
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:  # Ctrl-D
        print()
        return False


def make_parser() -> argparse.ArgumentParser:
    """All commands with their options; the reference is made from it."""
    parser = argparse.ArgumentParser(
        prog="macvlan-twisted",
        description="Commands for administrators. To start the plugin itself, use twistd macvlan.",
    )
    parser.add_argument("--version", action="version", version=f"macvlan-twisted {VERSION_TEXT}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")

    purging = commands.add_parser(
        "purge",
        help="remove everything that the plugin created on this host",
        description="Remove everything that the plugin created on this host: links, their routes, the state, and the "
        "runtime directory. Nothing else is touched. The command prints each object that it removes.",
    )
    purging.add_argument("--dry-run", action="store_true", help="Only print what would be removed.")
    purging.add_argument("--yes", action="store_true", help="Do not ask for confirmation.")
    purging.add_argument(
        "--force",
        action="store_true",
        help="Remove everything even if containers run, or may run, on networks of the plugin.",
    )
    purging.add_argument(
        "--every-instance",
        action="store_true",
        help="Also remove what other instances of the plugin (with other state directories) created, even if their directories are lost.",
    )
    state = next(option for option in OPTIONS if option.name == "state-dir")
    purging.add_argument(
        "--state-dir",
        action="append",
        metavar=state.metavar,
        help=f"The plugin's --state-dir; may be repeated. [default: {state.default_text}]",
    )
    _share(purging, "purge")

    looking = commands.add_parser(
        "sandboxes",
        help="list or remove container network namespaces that Docker left mounted",
        description="List the network namespaces of containers (Docker's sandboxes), and show for each whether a process "
        "runs in it, whether Docker knows it, and which links of the plugin are in it.",
    )
    looking.add_argument(
        "--remove",
        action="store_true",
        help="Remove the namespaces that no process uses and Docker does not know.",
    )
    looking.add_argument(
        "--engine-is-gone",
        action="store_true",
        help="If Docker's API does not answer, assume that Docker knows none of them.",
    )
    looking.add_argument(
        "--netns-dir",
        default=stale_sandboxes.DIRECTORY,
        metavar="DIRECTORY",
        help=f"The directory where Docker mounts them. [default: {stale_sandboxes.DIRECTORY}]",
    )
    _share(looking, "sandboxes")
    fleet_options.add_commands(commands, _share)
    return parser


def _share(parser: argparse.ArgumentParser, command: str) -> None:
    for option in OPTIONS:
        if option.name in SHARED[command]:
            text = SHARED[command][option.name]
            if option.default_text:
                text += f" [default: {option.default_text}]"
            parser.add_argument(f"--{option.name}", metavar=option.metavar, help=text)


def entry_point() -> None:
    """The console script."""
    sys.exit(main(sys.argv[1:]))
