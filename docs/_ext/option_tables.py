"""
The reference of all options as reStructuredText, from the program's own declarations.

The text is made without Sphinx, so that a unit test can read it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum

from macvlan_twisted.config import OPTIONS
from macvlan_twisted.driver import options as network_options
from macvlan_twisted.ipam import options as pool_options


def _indented(*paragraphs: str) -> Iterator[str]:
    for paragraph in paragraphs:
        yield from ("", f"   {paragraph}")


def _literal(text: object) -> str:
    return f"``{text}``"


def service() -> Iterator[str]:
    """The command line and the environment of ``twistd macvlan``."""
    yield ".. program:: twistd macvlan"
    for option in OPTIONS:
        names = [] if option.short is None else [f"-{option.short}"]
        names.append(f"--{option.name}" + ("" if option.is_flag else f"={option.metavar}"))
        facts = [f"Environment: {_literal(option.environment_variable)}."]
        if option.default_text:
            facts.append(f"Default: {_literal(option.default_text)}.")
        if option.repeats:
            facts.append("In the environment several values have commas between them.")
        yield from ("", f".. option:: {', '.join(names)}")
        yield from _indented(option.help, " ".join(facts))


def network() -> Iterator[str]:
    """The keys of ``docker network create -o``."""
    yield ".. program:: docker network create -o"
    for option in network_options.OPTIONS:
        yield from ("", f".. option:: {', '.join(f'{name}={option.metavar}' for name in option.names)}")
        yield from _indented(option.help)


def pool() -> Iterator[str]:
    """The keys of ``docker network create --ipam-opt``."""
    yield ".. program:: docker network create --ipam-opt"
    for option in pool_options.OPTIONS:
        yield from ("", f".. option:: {option.name}={option.metavar}")
        yield from _indented(option.help)


def config() -> Iterator[str]:
    """The attributes of Config, each with the option that sets it."""
    yield from (".. list-table::", "   :header-rows: 1", "   :widths: 24 38 38", "")
    yield from ("   * - Attribute", "     - Default", "     - Option")
    for option in OPTIONS:
        default = option.default.value if isinstance(option.default, StrEnum) else option.default
        yield f"   * - {_literal(option.attribute)}"
        yield f"     - {_literal(repr(default))}"
        yield f"     - :option:`twistd macvlan --{option.name}`"


KINDS: dict[str, Callable[[], Iterator[str]]] = {
    "service": service,
    "network": network,
    "pool": pool,
    "settings": config,
}


def reference_text(kind: str) -> str:
    """The reStructuredText of one table of options."""
    return "\n".join(KINDS[kind]())
