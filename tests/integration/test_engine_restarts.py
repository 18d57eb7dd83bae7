"""The engine is stopped or killed, and starts again."""

from collections.abc import Iterator

import pytest

from tests.integration.containers import AT_ONCE, OUR_IPAM, address, assert_all_talk, endpoints, states
from tests.lab.commands import within
from tests.lab.docker_host import DockerHost
from tests.lab.engine import Engine
from tests.lab.lan import Lan
from tests.lab.plugin import Plugin


@pytest.fixture(scope="module", params=[True, False], ids=["live-restore", "no live-restore"])
def own_engine(request: pytest.FixtureRequest, usable_engine_version: str) -> Iterator[Engine]:
    """Run an engine whose containers outlive it, or one whose do not."""
    with Lan() as lan, Engine(lan, usable_engine_version, live_restore=request.param) as engine:
        engine.load_busybox()
        yield engine


@pytest.fixture
def host(own_engine: Engine) -> Iterator[DockerHost]:
    """Run our service beside it, and insist that nothing is left in the end."""
    with Plugin(own_engine.lan, own_engine.plugins_dir) as plugin:
        made = DockerHost(own_engine, plugin)
        yield made
        if not own_engine.running:
            own_engine.start()
        own_engine.clear()
        plugin.stop()
        assert made.remains() == []


@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_containers_survive_an_engine_restart(host: DockerHost, ending: str) -> None:
    """With live-restore containers keep talking; without, those with a restart policy are started again."""
    engine = host.engine
    host.create("lan", *OUR_IPAM)
    host.start("once", AT_ONCE)
    host.start("always", AT_ONCE, "--restart=always")
    before = {name: address(engine, name) for name in ("once", "always")}

    if ending == "stop":
        engine.stop()
    else:
        engine.kill()
    if engine.live_restore:
        assert [each for each in before.values() if not host.lan.ping("neighbour", each)] == []
        engine.start()
        assert {name: address(engine, name) for name in before} == before, (
            "addresses changed in live containers"
        )
        assert_all_talk(host, ["once", "always"])
    else:
        engine.start()
        assert within(60, lambda: states(engine)["always"] == "running")
        assert states(engine)["once"] == "exited"
        assert_all_talk(host, ["always"])
        engine.docker("start", "once")

    host.start("new", AT_ONCE)
    assert_all_talk(host, ["once", "always", "new"])
    engine.docker("restart", "once")
    engine.docker("rm", "--force", "always")
    assert_all_talk(host, ["once", "new"])
    host.plugin.stop()
    assert {str(row[0]) for row in host.rows()["endpoints"]} == endpoints(engine), "state and engine disagree"
    host.plugin.start()
