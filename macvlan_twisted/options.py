"""
Options as metadata of attrs fields: those of the service, and those that a user sets with ``-o`` or ``--ipam-opt``.

A class of options declares each one once, as a field with its name, parser and help. The command line, the environment
and the generated reference read them with :func:`options_of`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from attrs import evolve, field, fields, frozen

from .errors import RequestRefused
from .option_values import did_you_mean

T = TypeVar("T")

ENVIRONMENT_PREFIX = "MACVLAN_TWISTED_"
_ENGINE_PREFIX = "com.docker."
"""Keys of the engine's own, which it passes to every driver."""
_METADATA_KEY = "macvlan_twisted.option"


@frozen
class ServiceOption:
    """How the command line and the environment set one field of :class:`~macvlan_twisted.config.Config`."""

    name: str
    parse: Callable[[str], Any]
    """Raises :exc:`ValueError` with the value and the remedy."""
    help: str
    metavar: str = "VALUE"
    short: str | None = None
    aliases: tuple[str, ...] = ()
    """Other spellings that work. Help and reference leave them out."""
    repeats: bool = False
    is_flag: bool = False
    counts_when_empty: bool = False
    """Whether an empty environment variable is a value. For other options it is as if the variable were not set."""
    default: Any = None
    attribute: str = ""

    @property
    def spellings(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)

    @property
    def usage(self) -> str:
        """How it is written on the command line."""
        short = "" if self.short is None else f"-{self.short}, "
        return f"{short}--{self.name}" + ("" if self.is_flag else f"={self.metavar}")

    @property
    def environment_variable(self) -> str:
        return variable_of(self.name)

    @property
    def default_text(self) -> str:
        if self.default is None or self.default == ():
            return ""
        if isinstance(self.default, bool):
            return "on" if self.default else "off"
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)

    def texts_in(self, environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """Pairs of variable and value. The variable of :attr:`name` comes last: of an option that does not repeat it wins."""
        for variable in map(variable_of, (*self.aliases, self.name)):
            text = environment.get(variable)
            if text or (text is not None and self.counts_when_empty):
                for each in text.replace(",", " ").split() if self.repeats else (text,):
                    yield variable, each


def variable_of(name: str) -> str:
    """The environment variable of the option that is spelled *name*."""
    return ENVIRONMENT_PREFIX + name.upper().replace("-", "_")


def service_option(default: Any, name: str, parse: Callable[[str], Any], help: str, **more: Any) -> Any:
    """
    An attrs field that an option of the service sets.

    :param more: other attributes of :class:`ServiceOption`.
    """
    return _declared(default, ServiceOption(name, parse, help, default=default, **more))


@frozen
class DriverOption:
    """One key of ``-o`` or ``--ipam-opt``."""

    name: str
    parse: Callable[[str], Any]
    """Raises :exc:`ValueError` with the value and the remedy."""
    help: str
    metavar: str = "VALUE"
    synonyms: tuple[str, ...] = ()
    """Other names that the reference lists."""
    aliases: tuple[str, ...] = ()
    """Other spellings that work. The reference leaves them out."""
    attribute: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.synonyms)

    @property
    def spellings(self) -> tuple[str, ...]:
        return (*self.names, *self.aliases)


def driver_option(name: str, parse: Callable[[str], Any], help: str, default: Any = None, **more: Any) -> Any:
    """
    An attrs field that a key of ``-o`` or ``--ipam-opt`` sets.

    :param more: other attributes of :class:`DriverOption`.
    """
    return _declared(default, DriverOption(name, parse, help, **more))


def _declared(default: Any, option: ServiceOption | DriverOption) -> Any:
    return field(default=default, metadata={_METADATA_KEY: option})


def options_of(kind: Any) -> tuple[Any, ...]:
    """The options that the attrs class *kind* declares, in the order of its fields."""
    return tuple(evolve(each.metadata[_METADATA_KEY], attribute=each.name) for each in fields(kind))


def parse_driver_options(flag: str, kind: type[T], texts: Mapping[str, str]) -> T:
    """
    A *kind* with the values that a user has set.

    :param flag: how a user sets such options: ``-o`` or ``--ipam-opt``.
    :param kind: an attrs class whose fields are made by :func:`driver_option`.
    :raises RequestRefused: an unknown key, a wrong value, or two spellings of one option that contradict each other.
    """
    options: tuple[DriverOption, ...] = options_of(kind)
    by_spelling = {spelling: option for option in options for spelling in option.spellings}
    values: dict[str, Any] = {}
    set_by: dict[str, str] = {}
    for name, text in texts.items():
        option = by_spelling.get(name)
        if option is None:
            if name.startswith(_ENGINE_PREFIX):
                continue
            raise RequestRefused(
                f"unknown option {flag} {name}: {did_you_mean(name, by_spelling)}use one of "
                f"{', '.join(sorted(each.name for each in options))}"
            )
        try:
            value = option.parse(text)
        except ValueError as error:
            raise RequestRefused(f"{flag} {name}: {error}") from None
        if option.attribute in values and values[option.attribute] != value:
            other = set_by[option.attribute]
            raise RequestRefused(
                f"{flag} {name}={text} conflicts with {flag} {other}={texts[other]}: {name} and {other} are two names for "
                "one option; set only one of them"
            )
        values[option.attribute], set_by[option.attribute] = value, name
    return kind(**values)
