"""
The reference of all options, written at build time from the tables that the program itself reads.

``.. option-reference:: service`` (or ``network``, ``pool``, ``settings``) puts one of them where it stands.
:func:`reference_text` needs no Sphinx, so that a unit test can read what it makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from macvlan_twisted.driver import options as network_options
from macvlan_twisted.ipam import options as pool_options
from macvlan_twisted.settings import OPTIONS, Settings


def _indented(*paragraphs: str) -> Iterator[str]:
    for paragraph in paragraphs:
        yield from ("", f"   {paragraph}")


def _literal(text: object) -> str:
    return f"``{text}``"


def service() -> Iterator[str]:
    """Of ``twistd macvlan``: the command line and the environment."""
    yield ".. program:: twistd macvlan"
    for option in OPTIONS:
        names = [] if option.short is None else [f"-{option.short}"]
        names.append(f"--{option.name}" + ("" if option.is_flag else f"={option.metavar}"))
        facts = [f"Environment: :envvar:`{option.environment_variable}`."]
        if option.default_text:
            facts.append(f"Default: {_literal(option.default_text)}.")
        if option.repeats:
            facts.append(
                "May be given several times; in the environment several values have commas between them."
            )
        yield from ("", f".. option:: {', '.join(names)}")
        yield from _indented(option.help, " ".join(facts))
        yield from ("", f"   .. envvar:: {option.environment_variable}")


def network() -> Iterator[str]:
    """Of ``docker network create -o``."""
    yield ".. program:: docker network create -o"
    for option in network_options.OPTIONS:
        yield from ("", f".. option:: {', '.join(f'{name}={option.metavar}' for name in option.names)}")
        yield from _indented(option.help)


def pool() -> Iterator[str]:
    """Of ``docker network create --ipam-opt``."""
    yield ".. program:: docker network create --ipam-opt"
    for option in pool_options.OPTIONS:
        yield from ("", f".. option:: {option.key}={option.metavar}")
        yield from _indented(option.help)


def settings() -> Iterator[str]:
    """The attributes of Settings, each with the option that says the same."""
    defaults = Settings()
    yield from (".. list-table::", "   :header-rows: 1", "   :widths: 24 38 38", "")
    yield from ("   * - Attribute", "     - Default", "     - Option")
    for option in OPTIONS:
        yield f"   * - {_literal(option.setting)}"
        yield f"     - {_literal(repr(getattr(defaults, option.setting)))}"
        yield f"     - :option:`twistd macvlan --{option.name}`"


_KINDS: dict[str, Callable[[], Iterator[str]]] = {
    "service": service,
    "network": network,
    "pool": pool,
    "settings": settings,
}


def reference_text(kind: str) -> str:
    """The reStructuredText of one table of options."""
    return "\n".join(_KINDS[kind]())


class OptionReference(SphinxDirective):
    """``.. option-reference:: KIND``"""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        kind = self.arguments[0]
        if kind not in _KINDS:
            raise self.error(f"no such table of options: {kind}; there are {', '.join(_KINDS)}")
        place = nodes.section()
        place.document = self.state.document
        lines = StringList(reference_text(kind).splitlines(), source=f"<options of {kind}>")
        self.state.nested_parse(lines, self.content_offset, place)
        return place.children


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("option-reference", OptionReference)
    return {"version": "1", "parallel_read_safe": True}
