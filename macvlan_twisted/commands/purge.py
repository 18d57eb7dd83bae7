"""Remove all that belongs to the plugin from this host: links, routes, sockets and state."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from attrs import define, field

from ..config import Config
from ..engine.blocking_client import BlockingEngineClient, Inspection, inspect_networks
from ..engine.interfaces import EngineError, EngineUnavailable
from ..errors import LinkError, RequestRefused, StartupError
from ..failpoints import Failpoint
from ..listener.file_lock import FileLock
from ..listener.unix_socket import remove_stale_socket
from ..netlink.kernel import HostRoute, Kernel, LinkFacts
from ..recovery.link_evidence import parse_alias_text
from ..state.directory import LOCK_NAME
from ..state.generation import RuntimeGeneration, RuntimeRecord
from ..state.owner import ROOT, Owner, is_roots_alone
from .inventory import (
    StateContents,
    foreign_uppers,
    instances_of_directories,
    our_links,
    our_routes,
    read_state,
    state_files,
)
from .terminal import Echo, printable

_REMOVE_FILE = Failpoint("commands.state.remove", "a file of the state is removed, since its user leaves us")


@define
class PurgePlan:
    """What is to be removed."""

    states: list[StateContents]
    routes: list[HostRoute] = field(factory=list)
    links: list[LinkFacts] = field(factory=list)
    files: list[Path] = field(factory=list)
    """Files before the directories that contain them."""
    sockets: list[Path] = field(factory=list)


def run(
    config: Config,
    kernel: Kernel,
    directories: Sequence[Path],
    *,
    every_instance: bool = False,
    dry_run: bool = False,
    force: bool = False,
    is_agreed: bool | Callable[[], bool] = True,
    echo: Echo = print,
    inspect: Callable[[Config], Inspection | None] | None = None,
) -> int:
    """
    Report what belongs to the plugin, and remove it.

    :param directories: the state directories to remove.
    :param every_instance: also remove links and states of other instances.
    :param dry_run: only report.
    :param force: also while containers run on our networks.
    :param is_agreed: whether to remove, or a function that asks.
    :param echo: prints a line.
    :param inspect: inspects the engine; ``None`` from it means that the engine does not answer.
    :return: the exit status.
    :raises StartupError: the service is running.
    :raises RequestRefused: containers are running on our networks, or may be.
    """
    echo = printable(echo)
    runtime = Path(config.runtime_dir)
    notes = list(RuntimeGeneration(runtime, directories[0]).all())
    with ExitStack() as held:
        states = [_lock_and_read(each, Owner.of(each), held) for each in directories if each.is_dir()]
        doubtful = _add_noted_states(states, notes, held) if every_instance else {}
        links = kernel.links(complete=True)  # the kernel removes a VLAN with others' links on it
        instances = None if every_instance else instances_of_directories(directories, runtime, states)
        plan = _make_plan(config, kernel, links, states, instances)
        plan.files[:0] = [
            each.path
            for each in notes
            if (instances is None or each.instance in instances) and each.path not in doubtful
        ]
        inspection = (inspect or _inspect_engine)(config)
        _refuse_running_containers(plan, inspection, links, force)
        _refuse_links_elsewhere(kernel, instances, force)
        _report_remaining(plan, inspection, links, instances, config, echo)
        verb = "would be removed" if dry_run else "is to be removed"
        for line in _describe(plan):
            echo(f"{verb}: {line}")
        is_nothing = not (plan.links or plan.files or plan.sockets or plan.routes)
        if is_nothing and not doubtful:
            echo("there is nothing of ours here")
        if dry_run or not (is_nothing or is_agreed is True or (callable(is_agreed) and is_agreed())):
            return 0 if dry_run else 1
        failures = [] if is_nothing else _remove(plan, kernel, links, config, echo)
    failures += doubtful.values()
    for directory in (*directories, runtime):  # even if an earlier run that was killed left it empty
        _remove_if_empty(directory, ROOT, echo)
    for state in states:
        _remove_if_empty(state.directory, ROOT if is_roots_alone(state.directory) else state.owner, echo)
    for failure in failures:
        echo(f"stays: {failure}")
    return 1 if failures else 0


def _lock_and_read(directory: Path, owner: Owner, held: ExitStack) -> StateContents:
    """
    Read the state in *directory* with the rights of *owner*, and lock it until the end of *held*.

    :raises StartupError: the service is running.
    """
    lock = FileLock(directory / LOCK_NAME, f"state directory {directory}", "--state-dir")

    def release() -> None:
        with owner.acting(), suppress(OSError):  # the owner has put something else in its place
            lock.release()

    with owner.acting():
        lock.acquire()
        held.callback(release)
        return read_state(directory, owner)


def _add_noted_states(
    states: list[StateContents], notes: Sequence[RuntimeRecord], held: ExitStack
) -> dict[Path, str]:
    """
    Add to *states* those that *notes* name. A note is the word of the user who owns it, and root takes it only for that
    user's own directory, and only if the database in there is of the instance.

    :return: the notes whose directories are not touched, and why.
    """
    doubtful: dict[Path, str] = {}
    for note in notes:
        directory = Path(note.directory)
        if any(each.directory == directory for each in states):
            continue
        subject = f"{directory}, which {note.path} names"
        with note.owner.acting():
            try:
                user = directory.stat().st_uid
                is_directory = directory.is_dir()
            except (FileNotFoundError, NotADirectoryError):  # the state is gone, and the note goes
                continue
            except OSError as error:
                doubtful[note.path] = f"{subject}: {error.strerror}"
                continue
        if not is_directory or user != note.owner.user:
            doubtful[note.path] = f"{subject}: the file and the directory must belong to the same user"
            continue
        with ExitStack() as meanwhile:
            state = _lock_and_read(directory, note.owner, meanwhile)
            if state.instance == note.instance:
                states.append(state)
                held.push(meanwhile.pop_all())
            else:
                doubtful[note.path] = (
                    f"{subject}: there is no readable state of instance {note.instance} in it; remove it with --state-dir"
                )
    return doubtful


def _make_plan(
    config: Config,
    kernel: Kernel,
    links: Sequence[LinkFacts],
    states: list[StateContents],
    instances: set[str] | None,
) -> PurgePlan:
    plan = PurgePlan(states)
    plan.links = our_links(links, instances, states)
    plan.routes = our_routes(plan.links, kernel)
    for each in states:
        with each.owner.acting():
            plan.files += state_files(each.directory)
    socket = Path(config.socket_path)
    plan.sockets = [path for path in (socket, Path(f"{socket}.lock")) if os.path.lexists(path)]
    return plan


def _inspect_engine(config: Config) -> Inspection | None:
    """:return: ``None`` if the engine does not answer."""
    if not config.docker_host:
        return None
    try:
        return inspect_networks(BlockingEngineClient(config.docker_host), config.plugin_name)
    except (EngineUnavailable, EngineError):
        return None


def _refuse_running_containers(
    plan: PurgePlan, inspection: Inspection | None, links: Sequence[LinkFacts], force: bool
) -> None:
    """
    :raises RequestRefused: containers are running on our networks, or may be.
    """
    if force:
        return
    if inspection is not None:
        running = sorted({each.container for found in inspection.networks for each in found.endpoints})
        if running:
            raise RequestRefused(
                f"containers are running on networks of the plugin: {', '.join(running)}; remove these containers, or add "
                "--force"
            )
        return
    present = {link.name for link in links}
    away = sorted(
        f"{endpoint.get('address') or endpoint.get('address_v6') or 'without address'} (endpoint {key[:12]})"
        for states in plan.states
        for key, endpoint in states.endpoints.items()
        if endpoint.get("link") not in present
    )
    if away:
        raise RequestRefused(
            f"the engine does not answer, and links may be in running containers ({', '.join(away)}): "
            "remove the containers, or set --docker-host to the engine's socket, or add --force"
        )
    if not any(states.instance for states in plan.states) and any(
        link.kind in ("vlan", "dummy") for link in plan.links
    ):
        raise RequestRefused(
            "there is no state and the engine does not answer, so it is unknown whether containers "
            "use the links: set --docker-host to the engine's socket, or add --force"
        )


def _refuse_links_elsewhere(kernel: Kernel, instances: Collection[str] | None, force: bool) -> None:
    """
    Our links in other network namespaces belong to running containers, even if this engine does not list them: there may
    be a second engine.

    :raises RequestRefused: links of ours are in other network namespaces.
    """
    if force:
        return
    try:
        elsewhere = kernel.links_elsewhere()
    except LinkError:  # this kernel does not show them
        return
    away = sorted(
        f"{link.mac} (endpoint {alias.identifier[:12]})"
        for link in elsewhere
        if (alias := parse_alias_text(link.alias)) is not None
        and (instances is None or alias.instance in instances)
    )
    if away:
        raise RequestRefused(
            f"links of the plugin are in other network namespaces ({', '.join(away)}): remove the "
            "containers (perhaps another engine's), use macvlan-twisted sandboxes to list what "
            "an engine left behind, or add --force"
        )


def _report_remaining(
    plan: PurgePlan,
    inspection: Inspection | None,
    links: Sequence[LinkFacts],
    instances: Collection[str] | None,
    config: Config,
    echo: Echo,
) -> None:
    for found in () if inspection is None else inspection.networks:
        echo(f"the engine still has network {found.name}: remove it with docker network rm {found.name}")
    for states in plan.states:
        for lease in states.leases:
            echo(
                f"the lease of {lease['address']} for {lease['mac']} by DHCP server {lease['server_id']} is not given back: "
                "it ends by itself"
            )
    if instances is not None:
        others = our_links(links, None, ())
        left = [link.name for link in others if link.name not in {each.name for each in plan.links}]
        if left:
            echo(
                f"links of other instances stay: {', '.join(left)}; with --every-instance they are removed, too"
            )


def _describe(plan: PurgePlan) -> list[str]:
    return [
        *(f"route to {route.destination} by {route.link}" for route in plan.routes),
        *(f"link {link.name} ({link.alias or link.kind})" for link in plan.links),
        *(f"socket {path}" for path in plan.sockets),
        *(f"file {path}" for path in plan.files if not path.is_dir()),
    ]


def _remove(
    plan: PurgePlan, kernel: Kernel, links: Sequence[LinkFacts], config: Config, echo: Echo
) -> list[str]:
    """
    Go on after an error.

    :return: what could not be removed, and why.
    """
    failures: list[str] = []
    for route in plan.routes:
        try:
            kernel.delete_host_route(route)
            echo(f"removed: route to {route.destination} by {route.link}")
        except LinkError as failure:
            failures.append(str(failure))
    names = {link.name for link in plan.links}
    staying: list[str] = []
    for link in plan.links:
        uppers = foreign_uppers(link, links, names)
        if uppers:
            staying.append(f"link {link.name}: {', '.join(uppers)} of others hang on it")
            continue
        try:
            kernel.delete(link.name)
            echo(f"removed: link {link.name} ({link.alias or link.kind})")
        except LinkError as failure:
            staying.append(str(failure))
    failures += [*staying, *_remove_socket(plan, config, echo)]
    if staying:
        failures.append("the state, which knows what stays")
        return failures
    owners = {each.directory: each.owner for each in plan.states}
    for path in plan.files:
        place = next((each for each in owners if path.is_relative_to(each)), None)
        try:
            owner = Owner.of(path.parent) if place is None else owners[place]
            with owner.acting(), _REMOVE_FILE:  # who may have replaced it meanwhile
                path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
            echo(f"removed: {path}")
        except OSError as error:
            failures.append(f"{path}: {error.strerror}")
    return failures


def _remove_socket(plan: PurgePlan, config: Config, echo: Echo) -> list[str]:
    if not plan.sockets:
        return []
    try:
        lock = FileLock(Path(config.socket_path + ".lock"), f"socket {config.socket_path}", "--plugin-name")
        lock.acquire()
        try:
            remove_stale_socket(config.socket_path, "--plugin-name")
        finally:
            lock.release()
    except (StartupError, OSError) as error:
        return [f"socket {config.socket_path}: {error}"]
    for path in plan.sockets:
        echo(f"removed: {path}")
    return []


def _remove_if_empty(directory: Path, owner: Owner, echo: Echo) -> None:
    try:
        with owner.acting(), _REMOVE_FILE:
            directory.rmdir()
    except OSError:
        return
    echo(f"removed: {directory}")
