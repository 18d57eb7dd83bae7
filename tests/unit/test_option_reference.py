"""The manual names every option, and no option that there is not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from runpy import run_path

from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.config import GROUPS, OPTIONS
from macvlan_twisted.driver import options as network_options
from macvlan_twisted.ipam import options as pool_options

DOCS = Path(__file__).resolve().parents[2] / "docs"
_TWISTDS = {"help", "version", "nodaemon", "pidfile", "logfile", "python"}
"""Options that stand beside ours and are not in our tables."""


def reference_text(kind: str) -> str:
    """One table of the reference, as the manual's build makes it."""
    text: str = run_path(str(DOCS / "_ext" / "option_tables.py"))["reference_text"](kind)
    return text


def pages() -> Iterator[tuple[str, str]]:
    """Every page of the manual, its lines joined where a command goes on in the next one."""
    for path in sorted(DOCS.rglob("*.rst")):
        yield str(path.relative_to(DOCS)), re.sub(r"\\\n\s*", " ", path.read_text(encoding="utf-8"))


class ReferenceTests(SynchronousTestCase):
    def test_an_option_of_the_service_is_missing(self) -> None:
        text = reference_text("service")
        for option in OPTIONS:
            for part in (f"``{option.usage}``", option.help, "" if option.is_flag else option.default_text):
                self.assertIn(part, text)

    def test_every_option_is_in_one_group(self) -> None:
        for groups, options in ((GROUPS, OPTIONS), (network_options.GROUPS, network_options.OPTIONS)):
            names = [name for group in groups.values() for name in group]
            self.assertEqual(sorted(names), sorted(option.name for option in options))

    def test_an_option_of_a_network_is_missing(self) -> None:
        text = reference_text("network")
        for option in network_options.OPTIONS:
            for part in (*(f"{name}={option.metavar}" for name in option.names), option.help):
                self.assertIn(part, text)

    def test_an_option_of_a_pool_is_missing(self) -> None:
        text = reference_text("pool")
        for option in pool_options.OPTIONS:
            self.assertIn(f"{option.name}={option.metavar}", text)
            self.assertIn(option.help, text)

    def test_a_setting_is_missing(self) -> None:
        text = reference_text("settings")
        for option in OPTIONS:
            self.assertIn(f"``{option.attribute}``", text)

    def test_a_command_is_missing(self) -> None:
        text = reference_text("commands")
        for part in ("macvlan-twisted purge\n---", "macvlan-twisted sandboxes\n---", "``--dry-run``"):
            self.assertIn(part, text)

    def test_a_page_is_not_what_the_program_has(self) -> None:
        """The remedy is ``python docs/make_reference.py``."""
        maker = run_path(str(DOCS / "make_reference.py"))
        written = set()
        for name in maker["PAGES"]:
            page = (DOCS / name).read_text(encoding="utf-8")
            self.assertEqual(page, maker["filled"](page), name)
            written |= set(re.findall(r"^\.\. table (\w+) begins", page, re.M))
        self.assertEqual(written, {"service", "network", "pool", "settings", "commands", "log", "errors"})

    def test_a_page_needs_sphinx_for_its_tables(self) -> None:
        """Where only docutils renders it, as code hosts do, a directive of Sphinx is an error, and hides its text."""
        for kind in ("service", "network", "pool", "commands"):
            text = reference_text(kind)
            self.assertEqual(set(re.findall(r"^\.\. ([\w-]+)::", text, re.M)), {"list-table"})
            self.assertNotRegex(text, r":[a-z]+:`")


class MentionedTests(SynchronousTestCase):
    """Options in commands, prose and messages of the manual."""

    def unknown(self, pattern: str, registry: set[str]) -> list[str]:
        return [
            f"{page}: {name}"
            for page, text in pages()
            for name in re.findall(pattern, text)
            if name not in registry
        ]

    def test_an_option_of_a_network_does_not_exist(self) -> None:
        registry = {name for option in network_options.OPTIONS for name in option.names}
        self.assertEqual(self.unknown(r"(?<![\w-])-o ([a-z_.]+[a-z_])", registry), [])

    def test_an_option_of_a_pool_does_not_exist(self) -> None:
        self.assertEqual(
            self.unknown(r"--ipam-opt ([a-z_]+)", {option.name for option in pool_options.OPTIONS}), []
        )

    def test_a_variable_does_not_exist(self) -> None:
        registry = {option.environment_variable for option in OPTIONS}
        self.assertEqual(self.unknown(r"MACVLAN_TWISTED_[A-Z_]*[A-Z]", registry), [])

    def test_an_option_of_the_service_does_not_exist(self) -> None:
        registry = {option.name for option in OPTIONS} | _TWISTDS
        commands = r"(?:twistd|twist|python -m twisted)\b[^`\n]*?\smacvlan\b([^`\n]*)"
        unknown = [
            f"{page}: --{name}"
            for page, text in pages()
            for rest in re.findall(commands, text)
            for name in re.findall(r"--?([a-z][a-z-]+)", rest)
            if name not in registry
        ]
        self.assertEqual(unknown, [])
