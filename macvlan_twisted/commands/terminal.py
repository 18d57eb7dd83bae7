"""What commands print."""

from __future__ import annotations

from collections.abc import Callable

Echo = Callable[[str], None]
"""Prints a line."""


def printable(echo: Echo) -> Echo:
    """What others wrote may hold what a terminal obeys: show it escaped."""

    def echo_escaped(line: str) -> None:
        echo("".join(each if each.isprintable() else ascii(each)[1:-1] for each in line))

    return echo_escaped
