"""The reader of the manual's examples, and that every page's examples can be read."""

from pathlib import Path

import pytest

from tests.integration.documented import (
    PAGES,
    BadExample,
    Command,
    File,
    LogLines,
    NotRun,
    begins_with,
    contains,
    matches,
    steps,
)

WIDEST = 88
"""Characters of the longest line of an example."""
REASONS = (
    "needs a package index",  # bin/lib/try_wheel.sh installs a wheel
    "needs systemd",  # those of install.rst run in a test of their own
    "needs a VLAN",  # tests/uml has a kernel that can
    "needs a dummy link",  # the same
    "needs a network manager",
    "needs a host of its own",
    "needs three hosts",  # test_fleet.py has two and an etcd; test_fleet_rights.py runs the script for certificates
    "needs a reboot",
    "takes minutes",
)
"""Why an example may be left out."""
PAGE = """\
A page
======

.. set up:
   $ touch marker

.. code-block:: console

   $ ip route show \\
       default
   default via 192.168.1.1
   laptop:~$ ping -c 1 192.168.1.128
   $ twistd --nodaemon macvlan
   ...
   ^C

* an item

  .. code-block:: yaml
     :caption: compose.yaml

     services:
       web: {}

.. not run: the lab has
   no systemd

.. code-block:: console

   $ systemctl enable macvlan-twisted

.. code-block:: text
   :class: log

   network created: 684e3611e7a2 on parent eth1 in mode bridge

.. code-block:: text

   whatever it is

.. literalinclude:: lan.tac
   :language: python
"""


def page_of(tmp_path: Path, text: str) -> Path:
    page = tmp_path / "page.rst"
    page.write_text(text, encoding="utf-8")
    return page


def test_examples_of_a_page_are_found_in_order(tmp_path: Path) -> None:
    (tmp_path / "lan.tac").write_text("pass\n", encoding="utf-8")
    assert steps(page_of(tmp_path, PAGE)) == [
        Command(4, "touch marker", "", seen=False),
        Command(7, "ip route show \\\n    default", "default via 192.168.1.1"),
        Command(7, "ping -c 1 192.168.1.128", "", "laptop"),
        Command(7, "twistd --nodaemon macvlan", "..."),
        Command(7, "^C", ""),
        File(19, "compose.yaml", "services:\n  web: {}\n"),
        NotRun(28, "the lab has no systemd", "$ systemctl enable macvlan-twisted\n"),
        LogLines(32, "network created: 684e3611e7a2 on parent eth1 in mode bridge\n"),
        File(41, "lan.tac", "pass\n"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Type::\n\n   docker ps\n",
        ".. code-block:: sh\n\n   docker ps\n",
        ".. code-block:: console\n\n   docker ps\n",
        ".. code-block:: yaml\n\n   a: b\n",
        ".. not run:\n\n.. code-block:: console\n\n   $ docker ps\n",
    ],
)
def test_block_that_no_test_would_run_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadExample, match=r"page\.rst:1"):
        steps(page_of(tmp_path, text))


def test_output_is_compared_but_for_what_varies() -> None:
    assert matches(
        "4: eth0@if2: <UP>\n   link/ether 7a:42:c0:a8:01:80",
        "17: eth0@if3: <UP>\nlink/ether 7a:42:c0:a8:01:80\n",
    )
    assert not matches("link/ether 7a:42:c0:a8:01:80", "link/ether 7a:42:c0:a8:01:81")
    assert matches("time=0.077 ms", "time=1.2 ms")
    assert matches("one\n...\nfour", "one\ntwo\nthree\nfour")
    assert matches("one\n...\ntwo", "one\ntwo")
    assert not matches("one", "one\ntwo")
    assert matches(
        "Error: ... in use on eth1: MAC\nba:52:d5:e7:3c:b2", "Error: x in use on eth1: MAC 00:11:22:33:44:55"
    )
    assert begins_with("one", "one\ntwo")
    assert not contains("three", "one\ntwo")


def test_examples_that_no_test_runs_have_a_known_reason(capsys: pytest.CaptureFixture[str]) -> None:
    """Prints what is not run, and why; ``pytest -s`` shows it."""
    found = [(page.name, step) for page in PAGES for step in steps(page)]
    left_out = [(name, step) for name, step in found if isinstance(step, NotRun)]
    with capsys.disabled():
        print(
            f"\n{len(found) - len(left_out)} examples are run on {len(PAGES)} pages, {len(left_out)} are not:"
        )
        for name, step in left_out:
            print(f"  {name}:{step.line}: {step.reason}")
    assert {step.reason for _, step in left_out} <= {*REASONS}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_example_fits_without_scrolling(page: Path) -> None:
    """The theme's column has room for so many characters."""
    for step in steps(page):
        text = step.text
        if isinstance(step, Command):
            text = f"$ {step.text}\n{step.output}" if step.seen else ""
        assert [line for line in text.splitlines() if len(line) > WIDEST] == []
