"""The examples of README, tutorial and how-to guides, typed as they stand on a LAN with the addresses that they name."""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.integration.conftest import need
from tests.integration.documented import (
    CHECKOUT,
    INTERRUPT,
    LAN,
    PAGES,
    Command,
    File,
    LogLines,
    NotRun,
    begins_with,
    contains,
    matches,
    steps,
)
from tests.lab.commands import within
from tests.lab.engine import Engine, storage_driver
from tests.lab.systemd import OURS, Systemd, missing_for_systemd
from tests.lab.unix_http import answers
from tests.lab.user_session import INSTALLED, UserSession

NICS = 2
ADDRESSES = LAN
UNITS = "/etc/systemd/system"
STARTS = ("twistd --nodaemon", "twist macvlan", "lan_program.py")
"""Commands with which a user runs the plugin in the foreground of another terminal."""
pytestmark = pytest.mark.engines("28.5")


@pytest.fixture
def session(engine: Engine) -> Iterator[UserSession]:
    """Give a user with the plugin installed; in the end nothing of what was made may be left."""
    need("" if storage_driver() == "overlay2" else "no overlay mounts here")
    with UserSession(engine) as made:
        yield made
        networks = engine.docker("network", "ls", "--quiet", "--filter", "type=custom")
        if networks and not made.plugin_runs:
            made.install()  # the page may have removed it
            made.start_service()
        engine.clear()
        made.interrupt()
        left = set(engine.lan.host_links()) ^ {"lo", "eth1", "eth2"}
        for link in left & set(engine.lan.host_links()):
            engine.lan.unplug("host", link)  # the next page is not to suffer for it
        if "eth2" in left:
            engine.lan.plug("host", "eth2")
        assert not left
        assert "Traceback" not in made.plugin_log


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_print_what_the_page_shows(page: Path, session: UserSession) -> None:
    todo = steps(page)
    typed = " ".join(each.text for each in todo if isinstance(each, Command))
    need("" if "curl" not in typed or shutil.which("curl") else "no curl here: apt-get install curl")
    if not any(start in typed for start in STARTS):
        session.start_service()
    if "nginx" in page.read_text(encoding="utf-8"):
        session.make_nginx()
    for step in todo:
        where = f"{page.name}:{step.line}"
        if isinstance(step, File):
            session.write(step.path, step.text)
        elif isinstance(step, LogLines):
            for line in paragraphs(step.text):
                logged = within(1, partial(has_logged, session, line))
                assert logged, f"{where}: not in the log: {line}\n{session.plugin_log}"
        elif isinstance(step, Command):
            run_command(where, step, session)


def test_systemd_steps_of_the_install_page_work(engine: Engine) -> None:
    """What the other test leaves out, on a machine with systemd."""
    need(missing_for_systemd())
    todo = [each for each in steps(CHECKOUT / "docs/howto/install.rst") if isinstance(each, NotRun)]
    blocks = [each for each in todo if each.reason == "needs systemd"]
    with Systemd(engine) as machine:
        for name in ("base", "lib", "checkout"):
            assert machine.attempt("touch", f"{INSTALLED}/{name}/x").status != 0, "the page could change it"
        machine.run(
            "rm", "-rf", "/etc/sysusers.d/macvlan-twisted.conf", *(f"{UNITS}/{unit}" for unit in OURS)
        )
        machine.run("userdel", "macvlan-twisted")
        for block in blocks:
            script = 'sudo() { "$@"; }\n' + block.text.replace("$ ", "")
            ended = machine.attempt("bash", "-e", "-c", script)
            assert ended.status == 0, f"install.rst:{block.line}: {ended}\n{machine.log()}"
            if block is not blocks[-1]:
                machine.run("systemctl", "is-active", *OURS)
                assert answers(engine.plugins_dir / "macvlan-twisted.sock", "POST", "/Plugin.Activate")
        assert machine.attempt("systemctl", "cat", OURS[0]).status != 0
        assert not machine.path("/var/lib/macvlan-twisted").exists()


def run_command(where: str, command: Command, session: UserSession) -> None:
    """Run one command of a page, and compare what it prints with what the page shows."""
    if command.text == INTERRUPT:
        session.interrupt()
        return
    if any(start in command.text for start in STARTS):
        session.start_plugin(command.text)
        shown = command.output or "..."
        assert within(1, lambda: begins_with(f"... {shown}", session.plugin_log)), (
            f"{where}: {session.plugin_log}"
        )
        return
    if command.text.endswith("&"):
        session.start(command.text, command.machine)
        return
    ended = session.type(command.text, command.machine)
    printed = f"{where}: $ {command.text}\n{ended.stdout}(status {ended.status})\n{session.plugin_log}"
    assert (ended.status != 0) == ("rror" in command.output), printed
    if command.output:
        assert matches(command.output, ended.stdout), f"{printed}\nthe page shows:\n{command.output}"


def has_logged(session: UserSession, shown: str) -> bool:
    """Say whether the plugin has logged what the page shows."""
    return contains(shown, session.plugin_log)


def paragraphs(text: str) -> list[str]:
    """Return the lines of a block; one that is indented goes on with the line before it."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(" ") and lines:
            lines[-1] += f" {line.strip()}"
        elif line.strip():
            lines.append(line)
    return lines
