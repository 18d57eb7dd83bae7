"""The service beside others: in this process on the reactor that pytest-twisted runs, and in a ``.tac``."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from twisted.application.internet import UNIXServer
from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.python.log import addObserver, removeObserver
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface.verify import verifyObject

from macvlan_twisted.addresses import parse_network
from macvlan_twisted.config import Config
from macvlan_twisted.engine.default_network import INITIAL_DELAY
from macvlan_twisted.errors import StartupError
from macvlan_twisted.service import make_macvlan_service
from macvlan_twisted.testing.kernel import FakeKernel, nic
from tests.integration.namespaced import NamespacedKernel
from tests.integration.on_reactor import on_reactor
from tests.lab.daemons import Daemon
from tests.lab.lan import Lan
from tests.lab.plugin import CHECKOUT, TWISTD
from tests.lab.unix_http import answers, request

NETWORK = "0" * 63 + "1"
CREATE = (
    b'{"NetworkID":"%b","Options":{"com.docker.network.generic":{"parent":"eth1"}},"IPv4Data":[],"IPv6Data":[]}'
    % NETWORK.encode()
)


class Greeter(Resource):
    """Another service's only page."""

    isLeaf = True

    def render_GET(self, request: object) -> bytes:
        """Greet."""
        return b"hello"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Give settings that touch nothing but a temporary directory."""
    directories = [
        (f"{what}-dir", str(tmp_path / name))
        for what, name in (("plugin", "plugins"), ("state", "state"), ("runtime", "run"))
    ]
    return Config.from_texts([*directories, ("host-interface", "eth1")], {})


@pytest.fixture
def complaints() -> Iterator[list[str]]:
    """Give what is logged as an error."""
    output: list[str] = []

    def note(event: dict[str, Any]) -> None:
        if event.get("isError"):
            output.append(str(event.get("failure") or event.get("log_format")))

    addObserver(note)
    yield output
    removeObserver(note)


def ask(config: Config, method: str, body: bytes = b"") -> "Deferred[tuple[int, bytes]]":
    """Ask from a thread, while the reactor serves."""
    return deferToThread(request, Path(config.socket_path), "POST", f"/{method}", body)


@on_reactor
async def test_service_runs_beside_another_in_one_process(
    config: Config, complaints: list[str], tmp_path: Path
) -> None:
    """Beside a web server, in one MultiService, on an injected reactor; stopped and started again."""
    from twisted.internet import reactor

    family = MultiService()
    UNIXServer(str(tmp_path / "web"), Site(Greeter())).setServiceParent(family)
    ours = make_macvlan_service(config, reactor=reactor, kernel=FakeKernel([nic("eth1", 2)]))
    assert verifyObject(IService, ours)
    ours.setServiceParent(family)
    assert not Path(config.state_dir).exists(), "something was opened before the start"
    for _ in range(2):
        family.startService()
        try:
            assert await deferToThread(request, tmp_path / "web", "GET", "/") == (200, b"hello")
            assert await ask(config, "NetworkDriver.CreateNetwork", CREATE) == (200, b"{}\n")
            assert family.getServiceNamed("macvlan-twisted") is ours
        finally:
            await family.stopService()
        assert not Path(config.socket_path).exists()
        assert not ours.running
    assert complaints == []


@on_reactor
async def test_embedded_service_touches_its_own_namespace_only(config: Config, lan: Lan) -> None:
    """The kernel is injected, too: here the real one in another namespace."""
    from twisted.internet import reactor

    namespaced = NamespacedKernel(lan)
    before = set(lan.host_links())
    service = make_macvlan_service(config, reactor=reactor, kernel=namespaced.kernel)
    service.startService()
    try:
        assert (await ask(config, "NetworkDriver.CreateNetwork", CREATE))[1] == b"{}\n"
        endpoint = b'{"NetworkID":"%b","EndpointID":"%b","Interface":{"Address":"192.168.77.9/24"}}' % (
            NETWORK.encode(),
            b"e" * 64,
        )
        assert b"7a:42:c0:a8:4d:09" in (await ask(config, "NetworkDriver.CreateEndpoint", endpoint))[1]
        assert len({name for name in lan.host_links() if name.startswith("mvt")}) == 1
        assert (await ask(config, "NetworkDriver.DeleteNetwork", b'{"NetworkID":"%b"}' % NETWORK.encode()))[
            1
        ] == b"{}\n"
    finally:
        await service.stopService()
        namespaced.close()
    assert set(lan.host_links()) == before


@on_reactor
async def test_second_instance_on_the_same_state_or_socket_is_refused(config: Config, tmp_path: Path) -> None:
    from twisted.internet import reactor

    def make(config: Config) -> Any:
        return make_macvlan_service(config, reactor=reactor, kernel=FakeKernel([nic("eth1", 2)]))

    first = make(config)
    first.startService()
    try:
        with pytest.raises(StartupError, match="another macvlan-twisted is using state directory"):
            make(evolve(config, plugin_name="other")).startService()
        with pytest.raises(StartupError, match="another macvlan-twisted is using socket"):
            make(evolve(config, state_dir=str(tmp_path / "other"))).startService()
        assert (await ask(config, "Plugin.Activate"))[0] == 200
        second = make(evolve(config, plugin_name="second", state_dir=str(tmp_path / "second")))
        second.startService()
        assert (await ask(evolve(config, plugin_name="second"), "Plugin.Activate"))[0] == 200
        await second.stopService()
        assert (await ask(config, "Plugin.Activate"))[0] == 200
    finally:
        await first.stopService()


@on_reactor
async def test_stop_ends_a_pending_question_to_the_engine(
    config: Config, complaints: list[str], tmp_path: Path
) -> None:
    """An engine may accept a question long before it answers; the end of the service ends the asking."""
    from twisted.internet import reactor

    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(tmp_path / "engine"))
        engine.listen()
        engine.settimeout(10)
        asking = evolve(
            config,
            create_network="auto",
            subnets=(parse_network("192.168.77.0/24"),),
            docker_host=f"unix://{tmp_path}/engine",
        )
        service = make_macvlan_service(asking, reactor=reactor, kernel=FakeKernel([nic("eth1", 2)]))
        service.startService()
        asked: dict[bytes, socket.socket] = {}
        with ExitStack() as questions:
            while asked.keys() != {b"/networks", b"/events"}:
                question, _ = await deferToThread(engine.accept)
                questions.enter_context(question).settimeout(10)
                path = (await deferToThread(question.recv, 65536)).split(b" ")[1].split(b"?")[0]
                asked[path] = question
            await service.stopService()
            for path, question in asked.items():
                assert await deferToThread(question.recv, 65536) == b"", path
        engine.settimeout(2 * INITIAL_DELAY)
        with pytest.raises(TimeoutError):
            await deferToThread(engine.accept)
    assert complaints == []


TAC = """
from twisted.application.service import Application
from twisted.application.strports import service
from twisted.web.server import Site
from twisted.web.static import Data

page = Data(b"hello", "text/plain")
page.isLeaf = True

from macvlan_twisted.config import Config
from macvlan_twisted.service import make_macvlan_service

application = Application("both")
service("unix:{directory}/web.sock", Site(page)).setServiceParent(application)
config = Config(host_interface="eth1", plugin_dir="{directory}", state_dir="{directory}/state", runtime_dir="{directory}/run")
make_macvlan_service(config).setServiceParent(application)
"""


def test_tac_file_starts_and_stops_its_services(lan: Lan, tmp_path: Path) -> None:
    tac = tmp_path / "both.tac"
    tac.write_text(TAC.format(directory=tmp_path), encoding="utf-8")
    words = (*TWISTD, "--nodaemon", f"--pidfile={tmp_path}/pid", "--python", str(tac))
    environ = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    twistd = Daemon("twistd", (*lan.enter("host"), sys.executable, *words), env=environ)
    socket = tmp_path / "macvlan-twisted.sock"
    for _ in range(2):
        twistd.start()
        try:
            twistd.wait_until(lambda: answers(socket, "POST", "/Plugin.Activate"), 20, "an answer")
            assert request(tmp_path / "web.sock", "GET", "/") == (200, b"hello")
            assert request(socket, "POST", "/NetworkDriver.CreateNetwork", CREATE) == (200, b"{}\n")
            twistd.send(signal.SIGTERM)
            # twistd itself ends by the signal; our command line alone makes a status of 0 of it
            assert twistd.wait(20) in (0, -signal.SIGTERM)
        finally:
            twistd.kill()
        assert not socket.exists()
    assert "stopped" in twistd.log()
    assert "Traceback" not in twistd.log()
