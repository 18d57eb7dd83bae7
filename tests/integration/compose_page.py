"""The compose files of the manual, each with the commands and the settings that it needs first."""

import re
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs/howto/compose.rst"
_HEADING = re.compile(r"^(?P<title>\S.*)\n(?:-+)$", re.MULTILINE)
_BLOCK = re.compile(
    r"^(?:\.\. code-block:: (?P<language>\w+)|.*::)\n\n(?P<text>(?:(?: .*)?\n)+)", re.MULTILINE
)


@dataclass(frozen=True)
class Recipe:
    """One section of the page."""

    title: str
    file: str
    settings: dict[str, str]
    """What stands in ``/etc/default/macvlan-twisted``."""
    networks: tuple[tuple[str, ...], ...]
    """The words of each ``docker network create``."""


def recipes(page: str) -> dict[str, Recipe]:
    """Return the recipes of the page, by their titles."""
    found = {}
    parts = _HEADING.split(page)[1:]
    for title, body in zip(parts[::2], parts[1::2], strict=True):
        blocks = [(each["language"], _dedented(each["text"])) for each in _BLOCK.finditer(body)]
        files = [text for language, text in blocks if language == "yaml"]
        if not files:
            continue
        (file,) = files
        texts = [text for language, text in blocks if not language and not text.startswith("networks:")]
        settings = [text for text in texts if text.startswith("MACVLAN_TWISTED_")]
        commands = [text for text in texts if text.startswith("docker ")]
        assert len(settings) + len(commands) == len(texts), f"neither settings nor a command: {texts}"
        found[title] = Recipe(
            title,
            file,
            dict(line.split("=", 1) for text in settings for line in text.split()),
            tuple(tuple(text.replace("\\\n", " ").split()) for text in commands),
        )
    return found


def _dedented(text: str) -> str:
    lines = text.splitlines()
    margin = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    return "\n".join(line[margin:] for line in lines).strip("\n") + "\n"


RECIPES = recipes(PAGE.read_text(encoding="utf-8"))
