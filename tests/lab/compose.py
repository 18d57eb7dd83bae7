"""Docker Compose of several releases, each beside any engine of the lab."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.lab.commands import Finished, attempt
from tests.lab.engine import Engine
from tests.lab.namespace_jail import Mounts, NamespaceJail
from tests.lab.roots import COMPOSES, PATH, root_of


@dataclass(frozen=True)
class Compose:
    """One Docker Compose, with a file to work on."""

    engine: Engine
    command: tuple[str, ...]

    def attempt(self, *words: str, variables: Mapping[str, str] | None = None) -> Finished:
        """Run a command of Compose's, with variables for the file, and answer how it ended."""
        environment = {
            **(variables or {}),
            "PATH": PATH,
            "HOME": "/root",
            "DOCKER_HOST": self.engine.docker_host,
            "DOCKER_CONFIG": f"{self.engine.directory}/client",
        }
        return attempt(*self.command, *words, timeout=120, env=environment)

    def run(self, *words: str, variables: Mapping[str, str] | None = None) -> str:
        """Run a command of Compose's, with variables for the file, which must succeed; return what it printed."""
        finished = self.attempt(*words, variables=variables)
        assert finished.status == 0, str(finished)
        return finished.stdout

    def container(self, service: str) -> str:
        """Return the id of a service's only container."""
        (found,) = self.run("ps", "-q", service).split()
        return found

    def down(self) -> None:
        """Remove the containers, and the networks that the file defines."""
        self.run("down", "--timeout", "0")


@contextmanager
def compose_of(engine: Engine, version: str, file: str) -> Iterator[Compose]:
    """Give a Docker Compose for the engine, with the text of a file; in the end all of the file is down."""
    path = engine.directory / "compose.yaml"
    path.write_text(file, encoding="utf-8")
    root = root_of(COMPOSES[version])
    command: tuple[str, ...] = ("docker-compose", "--file", str(path), "--project-name", "ship")
    with ExitStack() as undo:
        if root is not None:
            jail = NamespaceJail(Mounts(root=str(root), visible=(str(engine.directory),)))
            jail.open()
            undo.callback(jail.close)
            command = (*jail.enter(), *command)
        compose = Compose(engine, command)
        undo.callback(compose.down)
        yield compose
