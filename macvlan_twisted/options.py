"""Options that a user gives by key, as ``-o KEY=VALUE``: one way to read them, and one kind of message."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen

from .errors import RequestRefused

_FOREIGN_PREFIX = "com.docker."
"""Keys of the engine's own, which it hands to every driver."""


@frozen
class DriverOption:
    """One key, with the other names that it goes by; the generated reference is made from it."""

    key: str
    setting: str
    help: str
    parse: Callable[[str], Any]
    synonyms: tuple[str, ...] = ()
    metavar: str = "VALUE"

    @property
    def names(self) -> tuple[str, ...]:
        return (self.key, *self.synonyms)


def parse_driver_options(
    flag: str, options: Sequence[DriverOption], given: Mapping[str, str]
) -> dict[str, Any]:
    """
    The values of *given* by setting.

    :param flag: how a user gives such options: ``-o`` or ``--ipam-opt``.
    :raises Refused: an unknown key, a wrong value, or two synonyms that contradict each other.
    """
    by_name = {name: option for option in options for name in option.names}
    values: dict[str, Any] = {}
    named_by: dict[str, str] = {}
    for name, text in given.items():
        option = by_name.get(name)
        if option is None:
            if name.startswith(_FOREIGN_PREFIX):
                continue
            raise RequestRefused(
                f"unknown option {flag} {name}: known are {', '.join(sorted(each.key for each in options))}"
            )
        try:
            value = option.parse(text)
        except ValueError as error:
            raise RequestRefused(f"{flag} {name}: {error}") from None
        if option.setting in values and values[option.setting] != value:
            other = named_by[option.setting]
            raise RequestRefused(
                f"{flag} {name}={text} contradicts {flag} {other}={given[other]}: they mean the same, give one of them"
            )
        values[option.setting], named_by[option.setting] = value, name
    return values
