"""What the engine dropped without telling us is removed in the background, and nothing that is in use is."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.integration.lives import AT_ONCE, OUR_IPAM, address, assert_all_talk, steadily
from tests.lab.docker_host import DockerHost
from tests.lab.engine import Engine
from tests.lab.lan import Lan
from tests.lab.plugin import DEFAULTS, Haste, Plugin

HASTE = Haste()
OFTEN = ("--reconcile-every", "1")
PATIENCE = 60
"""Seconds within which a loaded machine has found out what a quiet one finds out within 20."""


@pytest.fixture(scope="module")
def engine(usable_engine_version: str) -> Iterator[Engine]:
    """Run an engine that is killed and started again by the tests; its containers outlive it."""
    with Lan() as lan, Engine(lan, usable_engine_version, external_containerd=True) as made:
        made.load_busybox()
        yield made


@contextmanager
def hasty_host(engine: Engine, *words: str) -> Iterator[DockerHost]:
    """Run our service in haste beside an engine, and insist that nothing is left in the end."""
    arguments = (*DEFAULTS, *OFTEN, *(words or ("--docker-host", engine.docker_host)))
    with ExitStack() as undo:
        plugin = undo.enter_context(
            Plugin(engine.lan, engine.plugins_dir, inside=engine, arguments=arguments, haste=HASTE)
        )
        host = DockerHost(engine, plugin)
        yield host
        if not plugin.running:
            plugin.start()
        if not engine.running:
            engine.start()
        engine.clear()
        plugin.stop()
        assert host.remains() == []


@pytest.fixture
def host(engine: Engine) -> Iterator[DockerHost]:
    """Run our service, which asks the engine."""
    with hasty_host(engine) as made:
        yield made


def links_of_containers(host: DockerHost) -> set[str]:
    """Return the links that lie in the host's namespace and are meant for containers."""
    return {name for name in host.links() if name.startswith("mvt")}


def rows(host: DockerHost) -> tuple[int, int]:
    """Stop the service, count its rows of endpoints and of containers' addresses, and start it again."""
    host.plugin.stop()
    found = host.rows()
    host.plugin.start()
    return len(found["endpoints"]), len([row for row in found["addresses"] if row[2] == "endpoint"])


def logged(host: DockerHost, *words: str) -> Callable[[], bool]:
    """Say how to find out whether the service has logged all of these words since now."""
    length = len(host.plugin.log())
    return lambda: all(word in host.plugin.log()[length:] for word in words)


def test_containers_removed_while_the_plugin_is_down_leave_links_or_addresses(host: DockerHost) -> None:
    """The engine tries each call for 15 seconds, removes the container all the same, and never speaks of it again."""
    host.create("lan", *OUR_IPAM)
    host.start("kept", AT_ONCE)
    host.start("gone", AT_ONCE)
    before = address(host.engine, "gone")
    host.plugin.stop()
    host.engine.docker("rm", "--force", "gone", timeout=150)
    collected = logged(host, "its link came back from the container", f"address {before} was handed out")
    host.plugin.start()
    assert steadily(collected, PATIENCE), host.plugin.log()
    assert links_of_containers(host) == set()
    assert rows(host) == (1, 1)
    assert_all_talk(host, ["kept"])
