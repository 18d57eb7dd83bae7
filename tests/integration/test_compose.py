"""The compose files of the manual, with Docker Compose of several releases and each engine."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import pytest

from tests.integration.compose_page import RECIPES, Recipe
from tests.integration.conftest import need, runs_everything
from tests.integration.documented import LAN
from tests.lab.compose import Compose, compose_of
from tests.lab.dhcp_server import DhcpServer
from tests.lab.docker_host import Container, DockerHost
from tests.lab.engine import Engine
from tests.lab.plugin import Plugin
from tests.lab.requirements import missing_for_compose, missing_for_dhcp
from tests.lab.roots import COMPOSES

ADDRESSES = LAN
EXISTING = "A network that exists already"
DEFINED = "A network that the file defines"
CAREFUL = "With host access and strict conflict detection"
NO_IPAM = "With DHCP"
LEASED = "With DHCP and the plugin's address management"
LEASED_ALONE = "With DHCP for one network only"
IPV6 = "With IPv6"
TITLES = (EXISTING, DEFINED, CAREFUL, NO_IPAM, LEASED, LEASED_ALONE, IPV6)
BY_DHCP = (NO_IPAM, LEASED, LEASED_ALONE)
WITHOUT_ADDRESSES = """\
services:
  web:
    image: busybox
    command: sleep 600
    stop_signal: SIGKILL
    environment:
      COLOUR: "${COLOUR:-blue}"
    networks: [lan]
  db:
    image: busybox
    command: sleep 600
    stop_signal: SIGKILL
    networks: [lan]

networks:
  lan:
    external: true
"""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each recipe with one Compose, another one from recipe to recipe; where everything runs, with each."""
    if "compose_version" not in metafunc.fixturenames:
        return
    titles = metafunc.definition.get_closest_marker("recipes")
    cases = [
        (title, version)
        for number, title in enumerate(titles.args if titles else TITLES)
        for place, version in enumerate(COMPOSES)
        if runs_everything(metafunc.config) or place == number % len(COMPOSES)
    ]
    metafunc.parametrize(("title", "compose_version"), cases)


@dataclass(frozen=True)
class Scene:
    """A recipe in its surroundings."""

    host: DockerHost
    compose: Compose
    server: DhcpServer | None

    def container(self, service: str) -> Container:
        """Return the container of a service."""
        return Container(self.host.engine, self.compose.container(service))


@contextmanager
def scene(engine: Engine, recipe: Recipe, version: str, settings: dict[str, str]) -> Iterator[Scene]:
    """Start our service with the settings, make the networks of the recipe, and insist that nothing is left after it."""
    need(missing_for_compose(version))
    with ExitStack() as undo:
        server = None
        if recipe.title in BY_DHCP:
            need(missing_for_dhcp())
            server = undo.enter_context(DhcpServer(engine.lan, range="192.168.1.100,192.168.1.119"))
        arguments = ("--docker-host", engine.docker_host)
        plugin = Plugin(
            engine.lan, engine.plugins_dir, inside=engine, arguments=arguments, environment=settings
        )
        host = DockerHost(engine, undo.enter_context(plugin))
        for words in recipe.networks:
            engine.docker(*words[1:])
        with compose_of(engine, version, recipe.file) as compose:
            yield Scene(host, compose, server)
        engine.clear()
        plugin.stop()
        assert host.remains() == []


def test_each_recipe_of_the_page_is_tried() -> None:
    assert set(TITLES) == set(RECIPES)


def test_recipe_works(engine: Engine, title: str, compose_version: str) -> None:
    recipe = RECIPES[title]
    with scene(engine, recipe, compose_version, recipe.settings) as it:
        it.compose.run("up", "--detach")
        web = it.container("web")
        assert web.ping("192.168.1.1")
        assert web.ping("192.168.1.20")
        if title in BY_DHCP:
            assert it.server is not None
            assert web.addresses() == {f"{it.server.addresses()[web.mac()]}/24"}
            if title == NO_IPAM:
                reaches = compose_version == "2.40.3" or engine.version == "20.10"
                assert (web.mac() == "02:00:00:00:00:17") == reaches, "the page says otherwise"
            assert web.routers() == {"192.168.1.1"}
        elif title == CAREFUL:
            assert web.addresses() == {"192.168.1.129/24"}
            assert web.ping("192.168.1.10")
            assert engine.lan.ping("host", "192.168.1.129")
        else:
            six = title == IPV6
            assert web.addresses() == {"192.168.1.200/24", *(("fd00:1::200/64",) if six else ())}
            assert web.routers() == {"192.168.1.1", *(("fd00:1::1",) if six else ())}
            db = it.container("db")
            assert db.addresses() == {"192.168.1.128/24", *(("fd00:1::7:0/64",) if six else ())}
            asked = engine.docker("exec", db.name, "ping", "-4", "-c1", "-w20", "web")
            assert "(192.168.1.200)" in asked
            assert web.ping("fd00:1::20") or not six
        it.compose.down()
        assert ("lan" in it.host.networks(), "leased" in it.host.networks()) == (
            title == EXISTING,
            title == LEASED_ALONE,
        )


@pytest.mark.recipes(CAREFUL, LEASED)
def test_recipe_without_its_setting_is_refused(engine: Engine, title: str, compose_version: str) -> None:
    """It would run without what it asks for, and nobody would notice."""
    with scene(engine, RECIPES[title], compose_version, {"MACVLAN_TWISTED_HOST_INTERFACE": "eth1"}) as it:
        refused = it.compose.attempt("up", "--detach")
        assert refused.status != 0
        assert "because the plugin's IPAM manages the addresses" in refused.stderr
        assert it.host.networks() <= {"bridge", "host", "none"}


def test_addresses_over_restart_and_recreation(engine: Engine) -> None:
    """The rows of Compose in the table of docs/explanation/addresses, with the Compose of the engine's Debian release."""
    (version,) = [compose for compose, release in COMPOSES.items() if release == engine.version]
    recipe = replace(RECIPES[EXISTING], file=WITHOUT_ADDRESSES)
    with scene(engine, recipe, version, recipe.settings) as it:

        def addresses() -> dict[str, tuple[set[str], str]]:
            containers = {service: it.container(service) for service in ("web", "db")}
            return {service: (each.addresses(), each.mac()) for service, each in containers.items()}

        it.compose.run("up", "--detach")
        before = addresses()
        it.compose.run("restart", "web")
        assert addresses() == before
        former = it.compose.container("web")
        it.compose.run("up", "--detach", variables={"COLOUR": "green"})
        assert it.compose.container("web") != former
        after = addresses()
        assert after["db"] == before["db"]
        if version == "1.29.2":  # the old container still exists when the new one starts
            assert after["web"] not in before.values()
        else:
            assert after == before
        it.compose.run("restart")
        restarted = addresses()
        assert restarted["web"] != after["db"]
        assert restarted["db"] != after["web"]
