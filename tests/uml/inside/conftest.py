"""What the tests in the guest share: a LAN, an engine; and the guard that keeps them in the guest."""

import os
from collections.abc import Iterator

import pytest

from tests.lab.engine import Engine
from tests.lab.lan import Lan
from tests.lab.plugin import Plugin
from tests.uml.inside.vlans import NIC, Host


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Skip before any fixture acts: what is tested here may not exist in the running kernel."""
    if os.environ.get("MACVLAN_TWISTED_UML") != "1":
        pytest.skip("runs in a user-mode Linux only: python -m tests.uml.boot")


@pytest.fixture(scope="session")
def lan() -> Iterator[Lan]:
    """One LAN for all tests, whose docker host has a second NIC for what is tagged."""
    with Lan(nics=2) as built:
        yield built


@pytest.fixture(scope="session")
def running_engine(lan: Lan) -> Iterator[Engine]:
    """One engine for all tests, since it takes ten seconds to start here."""
    with Engine(lan) as started:
        started.load_busybox()
        yield started


@pytest.fixture
def engine(running_engine: Engine) -> Iterator[Engine]:
    """The engine; what a test leaves behind in it is removed."""
    yield running_engine
    running_engine.clear()


@pytest.fixture
def host(lan: Lan) -> Iterator[Host]:
    """The docker host's links; what a test leaves behind upon the second NIC is removed."""
    links = Host(lan)
    links.ip("link", "set", NIC, "down")
    yield links
    links.clear()


@pytest.fixture(scope="module")
def running_plugin(lan: Lan, running_engine: Engine) -> Iterator[Plugin]:
    """One service for all tests of a module, since Python takes seconds to start here."""
    with Plugin(lan, running_engine.plugins_dir) as service:
        yield service


@pytest.fixture
def plugin(running_plugin: Plugin, host: Host, engine: Engine) -> Iterator[Plugin]:
    """Our service beside the engine. It knows no network, unless the test before has failed.

    What it logs during a test is shown if that fails. It runs afterwards, for the engine's sake: that is cleared
    next, and would wait 15 seconds for every call that a plugin does not answer.
    """
    already = len(running_plugin.log())
    yield running_plugin
    if not running_plugin.running:
        running_plugin.start()
    print(running_plugin.log()[already:])
