"""
Highlight literal blocks without a language of their own: ``console`` where lines begin with a prompt, ``bash`` where the first
line is a command, and plain text (log lines, messages, diagrams) otherwise.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

_COMMAND = re.compile(
    r"(?:[A-Z_]+=\S+ )?(?:\S*/)?"
    r"(?:sudo|docker|twistd?|macvlan-twisted|python3?|pip|git|apt-get|ip|ping|systemctl|journalctl|systemd-\w+|sysctl|modprobe"
    r"|mkdir|cp|cd|install|rm|cat|curl|echo|export|tee|nft|jq|grep|sqlite3|ls|towncrier|bin/\w+|[.])\s"
)


def language_of(text: str) -> str:
    """The lexer for a block."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    if any(line.startswith("$ ") for line in lines):
        return "console"
    return "bash" if lines and _COMMAND.match(lines[0] + " ") else "text"


class ShellBlocks(SphinxTransform):
    """Set the language of blocks that name none."""

    default_priority = 399  # before Sphinx gives them highlight_language

    def apply(self, **_: Any) -> None:
        for block in self.document.findall(nodes.literal_block):
            if "language" not in block:
                block["language"] = language_of(block.astext())


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_transform(ShellBlocks)
    return {"version": "1", "parallel_read_safe": True}
