"""What the tests in the guest share: a LAN, an engine; and the guard that keeps them in the guest."""

import os
from collections.abc import Iterator

import pytest

from tests.lab.engine import Engine
from tests.lab.lan import Lan


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Skip before any fixture acts: what is tested here may not exist in the running kernel."""
    if os.environ.get("MACVLAN_TWISTED_UML") != "1":
        pytest.skip("runs in a user-mode Linux only: python -m tests.uml.boot")


@pytest.fixture(scope="session")
def lan() -> Iterator[Lan]:
    """One LAN for all tests, since a namespace's links are quicker removed than a LAN is built."""
    with Lan() as built:
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
