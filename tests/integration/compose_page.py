"""The compose files of the manual, each with the commands and the settings that it needs first."""

import re
from dataclasses import dataclass
from pathlib import Path

from tests.integration.documented import CHECKOUT, Command, File, steps
from tests.lab.user_session import SETTINGS

PAGE = CHECKOUT / "docs/howto/compose.rst"
_HEADING = re.compile(r"^(?P<title>\S.*)\n-+$", re.MULTILINE)


@dataclass(frozen=True)
class Recipe:
    """One section of the page."""

    title: str
    file: str
    settings: dict[str, str]
    """What stands in ``/etc/default/macvlan-twisted``."""
    networks: tuple[tuple[str, ...], ...]
    """The words of each ``docker network create``."""


def recipes(page: Path) -> dict[str, Recipe]:
    """Return the recipes of the page, by their titles."""
    text = page.read_text(encoding="utf-8")
    headings = [(text.count("\n", 0, each.start()) + 1, each["title"]) for each in _HEADING.finditer(text)]
    found = {}
    for (line, title), (end, _) in zip(headings, [*headings[1:], (text.count("\n") + 1, "")], strict=True):
        examples = [each for each in steps(page) if line < each.line < end]
        files = {each.path: each.text for each in examples if isinstance(each, File)}
        if not files:
            continue
        settings = files.pop(SETTINGS, "")
        ((path, file),) = files.items()
        assert path == "compose.yaml"
        commands = [each.text for each in examples if isinstance(each, Command)]
        assert all(each.startswith("docker network create") for each in commands), commands
        found[title] = Recipe(
            title,
            file,
            dict(line.split("=", 1) for line in settings.split()),
            tuple(tuple(each.replace("\\\n", " ").split()) for each in commands),
        )
    return found


RECIPES = recipes(PAGE)
