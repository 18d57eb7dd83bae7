"""Fixtures on top of the lab: a LAN, a Docker Engine, our plugin.

``pytest tests/integration --engines=20.10,26.1,28.5`` runs every test that uses an engine once with each;
where pytest learns of this file too late to know the option, ``MACVLAN_TWISTED_ENGINES`` says the same. What
a machine lacks skips tests, unless ``MACVLAN_TWISTED_NOTHING_SKIPPED=1`` makes that a failure.
"""

import os
from collections.abc import Iterator

import pytest

from tests.lab.engine import Engine
from tests.lab.lan import Lan
from tests.lab.plugin import Plugin
from tests.lab.requirements import missing_for_engine, missing_for_lan
from tests.lab.roots import OWN_VERSION


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--engines``."""
    parser.addoption("--engines", help=f"versions of Docker Engine, with commas (default {OWN_VERSION})")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what uses an engine once with each of the chosen versions."""
    if "engine_version" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--engines", default=None)
        chosen = chosen or os.environ.get("MACVLAN_TWISTED_ENGINES") or OWN_VERSION
        versions = [version.strip() for version in chosen.split(",")]
        metafunc.parametrize("engine_version", versions, scope="module")


def _need(missing: str) -> None:
    if missing and os.environ.get("MACVLAN_TWISTED_NOTHING_SKIPPED") == "1":
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)


@pytest.fixture
def lan() -> Iterator[Lan]:
    """Give a LAN to one test; it takes a tenth of a second to build."""
    _need(missing_for_lan())
    with Lan() as made:
        yield made


@pytest.fixture(scope="module")
def usable_engine_version(engine_version: str) -> str:
    """Give a version whose engine can run here, for tests that make an engine of their own."""
    _need(missing_for_engine(engine_version))
    return engine_version


@pytest.fixture(scope="module")
def lasting_engine(usable_engine_version: str) -> Iterator[Engine]:
    """Run an engine, on a LAN of its own, for all tests of a module."""
    with Lan() as lan, Engine(lan, usable_engine_version) as engine:
        engine.load_busybox()
        yield engine


@pytest.fixture
def engine(lasting_engine: Engine) -> Iterator[Engine]:
    """Give the module's engine to one test; afterwards it runs, with neither containers nor networks."""
    yield lasting_engine
    if not lasting_engine.running:
        lasting_engine.start()
    lasting_engine.clear()


@pytest.fixture
def plugin(engine: Engine) -> Iterator[Plugin]:
    """Run our service beside the engine for one test; its state is thrown away afterwards."""
    with Plugin(engine.lan, engine.plugins_dir) as service:
        yield service
        # For every call that an absent plugin does not answer an engine waits 15 seconds: clear up before.
        if not service.running:
            service.start()
        if not engine.running:
            engine.start()
        engine.clear()
