"""Fixtures on top of the lab: a LAN, a Docker Engine, our plugin.

``pytest tests/integration --engines=20.10,26.1,28.5`` runs every test that uses an engine once with each of them.
``bin/test`` sets ``MACVLAN_TWISTED_ENGINES`` instead: then each module runs with one of these engines, another one
from module to module, unless ``MACVLAN_TWISTED_TEST_ALL=1`` asks for each test with each engine. What a machine lacks
skips tests, unless ``MACVLAN_TWISTED_NOTHING_SKIPPED=1`` makes that a failure.

A test whose outcome does not depend on the engine is marked ``one_engine`` and runs with the first of the chosen
versions; one that needs certain versions names them with ``engines("28.5")``. A module that needs more than one NIC on
the docker host says ``NICS = 2``, and one with addresses of its own says ``ADDRESSES = Addresses(...)``.

Where a fixture runs our service beside an engine, the service finds what it would find on a real host: the
engine's API (``--docker-host``) and the containers' sandboxes in ``/var/run/docker/netns``.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from zlib import crc32

import pytest

from tests.integration.kept_engines import KeptEngines
from tests.lab.dhcp_server import DhcpServer
from tests.lab.docker_host import DockerHost
from tests.lab.engine import Engine
from tests.lab.etcd_binaries import OWN_VERSION as OWN_ETCD
from tests.lab.etcd_binaries import VERSIONS as ETCD_VERSIONS
from tests.lab.lan import Lan
from tests.lab.plugin import DEFAULTS, Plugin, ShortGracePeriods
from tests.lab.requirements import missing_for_dhcp, missing_for_engine, missing_for_lan
from tests.lab.roots import OWN_VERSION

BASIC = ("test_networks.py", "test_engine_restarts.py", "test_sharing.py")
"""Files whose tests run with every engine in the short form, too."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--engines``."""
    parser.addoption("--engines", help=f"versions of Docker Engine, with commas (default {OWN_VERSION})")


def pytest_configure(config: pytest.Config) -> None:
    """Make our marks known."""
    for mark in (
        "one_engine: run with the first of the chosen engines only",
        "engines(version, ...): run with these of the chosen engines only",
        "plugin_arguments(word, ...): what the fixture docker_host adds to the plugin's command line",
        "dhcp_server(range, t1, t2): how the fixture server differs from its defaults",
        "recipes(title, ...): which compose files of the manual a test of test_compose.py runs",
        "short_grace_periods: the plugin of the fixture docker_host soon removes what nobody has",
    ):
        config.addinivalue_line("markers", mark)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what uses an engine once with each of the chosen versions."""
    if "engine_version" in metafunc.fixturenames:
        asked = metafunc.config.getoption("--engines", default=None)
        chosen = asked or os.environ.get("MACVLAN_TWISTED_ENGINES") or OWN_VERSION
        # pytest keeps an engine from test to test only if its parameter is the same object.
        versions = [sys.intern(version.strip()) for version in chosen.split(",")]
        module = metafunc.definition.path.name
        if metafunc.definition.get_closest_marker("one_engine"):
            versions = versions[:1]
        elif mark := metafunc.definition.get_closest_marker("engines"):
            versions = [version for version in versions if version in mark.args]
        elif not runs_everything(metafunc.config) and module not in BASIC:
            versions = [engine_of(module, versions)]
        metafunc.parametrize("engine_version", versions, scope="module")

    if "etcd_version" in metafunc.fixturenames:
        versions = list(ETCD_VERSIONS) if runs_everything(metafunc.config) else [OWN_ETCD]
        metafunc.parametrize("etcd_version", versions, scope="module")


def runs_everything(config: pytest.Config) -> bool:
    """Say whether each test runs with all that was chosen, and not with one of it."""
    asked = config.getoption("--engines", default=None)
    return bool(asked) or os.environ.get("MACVLAN_TWISTED_TEST_ALL") == "1"


def engine_of(module: str, versions: Sequence[str]) -> str:
    """Return the engine that the short form runs a module with: the same one each time, so that failures repeat."""
    return versions[crc32(module.encode()) % len(versions)]


def need(missing: str) -> None:
    """Skip the test, or fail it where nothing may be skipped, if something is missing."""
    if missing and os.environ.get("MACVLAN_TWISTED_NOTHING_SKIPPED") == "1":
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)


@pytest.fixture
def lan() -> Iterator[Lan]:
    """Give a LAN to one test; it takes a tenth of a second to build."""
    need(missing_for_lan())
    with Lan() as made:
        yield made


@pytest.fixture(scope="module")
def usable_engine_version(engine_version: str) -> str:
    """Give a version whose engine can run here, for tests that make an engine of their own."""
    need(missing_for_engine(engine_version))
    return engine_version


@pytest.fixture(scope="session")
def kept_engines() -> Iterator[KeptEngines]:
    """Keep engines from module to module."""
    with KeptEngines() as kept:
        yield kept


@pytest.fixture(scope="module")
def lasting_engine(
    request: pytest.FixtureRequest, kept_engines: KeptEngines, usable_engine_version: str
) -> Iterator[Engine]:
    """Give an engine, on a LAN of its own, to all tests of a module.

    Other modules with the same order had it before, unless one of their tests failed.
    """
    addresses = getattr(request.module, "ADDRESSES", None)
    order = (usable_engine_version, addresses, getattr(request.module, "NICS", 1))
    failed = request.session.testsfailed
    yield kept_engines.engine(order)
    if request.session.testsfailed > failed:
        kept_engines.discard(order)


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
    with Plugin(engine.lan, engine.plugins_dir, inside=engine) as service:
        yield service
        # For every call that an absent plugin does not answer an engine waits 15 seconds: clear up before.
        if not service.running:
            service.start()
        if not engine.running:
            engine.start()
        engine.clear()


@pytest.fixture
def docker_host(request: pytest.FixtureRequest, lasting_engine: Engine) -> Iterator[DockerHost]:
    """Run our service beside the engine for one test, and insist that nothing is left after it.

    That is no container, no network, no link, route or address, no row in the state, and no traceback in the
    service's log.
    """
    with hosts_with_our_service(request, lasting_engine) as (host,):
        yield host


@pytest.fixture
def server(request: pytest.FixtureRequest, docker_host: DockerHost) -> Iterator[DhcpServer]:
    """Run a DHCP server at the gateway of our service's LAN."""
    need(missing_for_dhcp())
    mark = request.node.get_closest_marker("dhcp_server")
    with DhcpServer(docker_host.lan, **(mark.kwargs if mark else {})) as made:
        yield made


@pytest.fixture(scope="module")
def two_lasting_engines(
    request: pytest.FixtureRequest, usable_engine_version: str
) -> Iterator[tuple[Engine, Engine]]:
    """Run an engine in each of two docker hosts on one LAN, for all tests of a module."""
    with (
        Lan(nics=getattr(request.module, "NICS", 1), hosts=2) as lan,
        Engine(lan, usable_engine_version) as first,
        Engine(lan, usable_engine_version, place="host2") as second,
    ):
        first.load_busybox()
        second.load_busybox()
        yield first, second


@pytest.fixture
def two_hosts(
    request: pytest.FixtureRequest, two_lasting_engines: tuple[Engine, Engine]
) -> Iterator[tuple[DockerHost, DockerHost]]:
    """Run our service on each of two docker hosts on one LAN, and insist that nothing is left on either.

    Both get the same `plugin_arguments`.
    """
    with hosts_with_our_service(request, *two_lasting_engines) as (first, second):
        yield first, second


@contextmanager
def hosts_with_our_service(
    request: pytest.FixtureRequest, *engines: Engine, fleet: str = ""
) -> Iterator[tuple[DockerHost, ...]]:
    """Run our service beside each engine, clear all up after the block, and insist that nothing is left.

    With a `fleet` the hosts share their addresses there, each called after its place.
    """
    mark = request.node.get_closest_marker("plugin_arguments")
    short_grace_periods = (
        ShortGracePeriods() if request.node.get_closest_marker("short_grace_periods") else None
    )
    often = () if short_grace_periods is None else ("--reconcile-interval", "1")
    with ExitStack() as services:
        hosts = []
        for engine in engines:
            shared = ("--fleet", fleet, "--fleet-host", engine.place) if fleet else ()
            arguments = (
                *DEFAULTS,
                "--docker-host",
                engine.docker_host,
                *often,
                *shared,
                *(mark.args if mark else ()),
            )
            service = Plugin(
                engine.lan,
                engine.plugins_dir,
                inside=engine,
                arguments=arguments,
                short_grace_periods=short_grace_periods,
            )
            hosts.append(DockerHost(engine, services.enter_context(service)))
        yield tuple(hosts)
        for host in hosts:
            if not host.plugin.running:
                host.plugin.start()
            if not host.engine.running:
                host.engine.start()
            host.engine.clear()
            host.plugin.stop()
        assert {host.place: left for host in hosts if (left := host.remains())} == {}
