"""How the documentation is built: ``sphinx-build -W -n docs docs/_build/html`` in the checkout."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

from macvlan_twisted import VERSION_TEXT  # noqa: E402  - found by the line above

project = "macvlan-twisted"
author = "the authors of macvlan-twisted"
release = version = VERSION_TEXT

extensions = [
    "sphinx.ext.autodoc",
    "failpoint_table",
    "torture_table",
    "benchmark_tables",
    "news",
    "shell_blocks",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"macvlan-twisted {VERSION_TEXT}"
html_static_path = ["_static"]
html_css_files = ["manual.css"]
html_show_copyright = False
html_copy_source = False
highlight_language = "text"
copybutton_prompt_text = r"(?:\w+:~)?\$ "  # copy only the commands of a console session
copybutton_prompt_is_regexp = True
smartquotes = False  # a quoted name must stay as it is typed
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"

# Types of other projects: to resolve them a build would have to ask the network.
nitpick_ignore_regex = [
    ("py:.*", r"(ipaddress\.)?IPv[46](Address|Network|Interface)"),
    ("py:.*", r"(twisted|zope)\..*"),
    ("py:.*", r"(Any|Callable|Mapping|Sequence|Deferred|SystemExit|Exception|tuple|str|int|bool|None)"),
    ("py:.*", r"(typing|collections\.abc)\..*"),
    (
        "py:.*",
        r"macvlan_twisted\.(addresses|clock|netlink|service)\..*|macvlan_twisted\.errors\.MacvlanError",
    ),
    ("py:.*", r"(AddressRange|Kernel|MacvlanService|MacvlanError|IPAddress|IPNetwork)"),
]
