"""
The reference of all options and commands as reStructuredText, from the program's own declarations.

The text is plain: it can be read where only docutils renders it, or nothing at all. ``docs/make_reference.py`` writes it
into the pages.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum

from macvlan_twisted.commands.cli import make_parser
from macvlan_twisted.config import OPTIONS, grouped_options
from macvlan_twisted.driver import options as network_options
from macvlan_twisted.ipam import options as pool_options


def _literal(text: object) -> str:
    return f"``{text}``"


def _table(columns: tuple[str, ...], widths: str, rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield from ("", ".. list-table::", "   :header-rows: 1", f"   :widths: {widths}", "")
    for row in (columns, *rows):
        for number, cell in enumerate(row):
            yield f"   {'* -' if number == 0 else '  -'} {cell}".rstrip()
    yield ""


def service() -> Iterator[str]:
    """The command line of ``twistd macvlan``, by purpose."""
    for title, options in grouped_options():
        yield from ("", title, "~" * len(title))
        yield from _table(
            ("Option", "Default", "Meaning"),
            "30 20 50",
            (
                (
                    _literal(option.usage),
                    _literal(option.default_text) if option.default_text and not option.is_flag else "",
                    option.help,
                )
                for option in options
            ),
        )


def network() -> Iterator[str]:
    """The keys of ``docker network create -o``."""
    for title, options in network_options.grouped_options():
        yield from ("", title, "~" * len(title))
        yield from _table(
            ("Option", "Meaning"),
            "35 65",
            (
                (" or ".join(_literal(f"{name}={option.metavar}") for name in option.names), option.help)
                for option in options
            ),
        )


def pool() -> Iterator[str]:
    """The keys of ``docker network create --ipam-opt``."""
    yield from _table(
        ("Option", "Meaning"),
        "35 65",
        ((_literal(f"{option.name}={option.metavar}"), option.help) for option in pool_options.OPTIONS),
    )


def config() -> Iterator[str]:
    """The attributes of Config, each with the option that sets it."""
    yield from _table(
        ("Attribute", "Default", "Option"),
        "24 38 38",
        (
            (
                _literal(option.attribute),
                _literal(
                    repr(option.default.value if isinstance(option.default, StrEnum) else option.default)
                ),
                _literal(f"--{option.name}"),
            )
            for option in OPTIONS
        ),
    )


def commands() -> Iterator[str]:
    """The commands of ``macvlan-twisted``."""
    for name, command in _subcommands(make_parser()).items():
        title = f"macvlan-twisted {name}"
        yield from ("", title, "-" * len(title), "", command.description or "")
        inner = _subcommands(command)
        if not inner:
            yield from _options_table(_options(command).values())
            continue
        shared = set.intersection(*(set(_options(each)) for each in inner.values()))
        for inner_name, each in inner.items():
            title = f"macvlan-twisted {name} {inner_name}"
            yield from ("", title, "~" * len(title), "", each.description or "")
            own = [option for usage, option in _options(each).items() if usage not in shared]
            if own:
                yield from _options_table(own)
        title = f"Options of all commands of macvlan-twisted {name}"
        yield from ("", title, "~" * len(title))
        first = next(iter(inner.values()))
        yield from _options_table(option for usage, option in _options(first).items() if usage in shared)


def _subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found = (each.choices for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    return next(found, {})


def _options(command: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """By usage."""
    return {_usage(action): action for action in command._actions if action.dest != "help"}


def _options_table(options: Iterable[argparse.Action]) -> Iterator[str]:
    yield from _table(
        ("Option", "Default", "Meaning"),
        "30 20 50",
        ((_literal(_usage(each)), *_default_and_meaning(each.help or "")) for each in options),
    )


def _usage(action: argparse.Action) -> str:
    if not action.option_strings:
        return str(action.metavar)
    return action.option_strings[-1] + ("" if action.nargs == 0 else f" {action.metavar}")


def _default_and_meaning(text: str) -> tuple[str, str]:
    text, _, default = text.replace("%%", "%").partition(" [default: ")
    return _literal(default.rstrip("]")) if default else "", f"{text[0].upper()}{text[1:].rstrip('.')}."


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "service": service,
    "network": network,
    "pool": pool,
    "settings": config,
    "commands": commands,
}


def reference_text(kind: str) -> str:
    """The reStructuredText of one table."""
    return re.sub(r"\n{3,}", "\n\n", "\n".join(TABLES[kind]()).strip("\n"))
