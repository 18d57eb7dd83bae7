"""Find sandboxes that an engine left mounted, and remove those that neither a process nor the engine uses."""

from __future__ import annotations

import ctypes
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ..config import Config
from ..engine.blocking_client import BlockingEngineClient
from ..engine.client import parsing_answer
from ..engine.interfaces import EngineError, EngineUnavailable
from ..errors import LinkError, RequestRefused
from ..failpoints import Failpoint
from ..link_names import ALIAS_PREFIX
from ..netlink.netns import links_in
from ..worker_threads import RunInThread

_log = Logger(namespace="macvlan_twisted.netlink")

DIRECTORY = "/var/run/docker/netns"
CONFIRMATION_DELAY = 10.0
"""Seconds between two checks: a starting container has a sandbox before it has a process and before the engine shows it."""
_CONTAINERS = re.compile(r"[0-9a-f]{12}")
"""Names of container sandboxes. Others belong to overlay networks and to the host."""
_MNT_DETACH = 2  # sys/mount.h

_REMOVE = Failpoint(
    "commands.sandbox.remove", "a sandbox that nobody knows is unmounted, and its file removed"
)


@frozen
class Sandbox:
    path: Path
    is_mounted: bool
    processes: tuple[int, ...]
    """Processes in this network namespace."""
    is_known: bool | None
    """Whether the engine knows it; ``None`` if the engine did not answer."""
    links: tuple[str, ...] = ()
    """Our links in it."""

    @property
    def is_stale(self) -> bool:
        """Whether it certainly belongs to no container."""
        return not self.processes and self.is_known is False


def engine_sandboxes(engine: BlockingEngineClient) -> set[str]:
    """
    :return: the names of the sandboxes of all containers.
    :raises EngineUnavailable: the engine does not answer. :raises EngineError: it answers with an error.
    """
    known = set()
    with parsing_answer("its containers"):
        for listed in engine.get("/containers/json?all=1"):
            try:
                container = engine.get(f"/containers/{listed['Id']}/json")
            except EngineError:
                continue  # it was removed meanwhile
            key = (container.get("NetworkSettings") or {}).get("SandboxKey")
            if key:
                known.add(os.path.basename(key))
    return known


def processes_by_namespace(proc: Path = Path("/proc")) -> dict[int, list[int]]:
    """
    Find the network namespaces of all threads.

    :return: process ids by inode number of the namespace.

    :raises RequestRefused: some processes cannot be inspected.
    """
    found: dict[int, list[int]] = {}
    if not (proc / "1").exists():  # hidepid, or ProtectProc of systemd
        raise RequestRefused(
            "processes of other users are hidden, so it is unknown who uses a sandbox: run this as root"
        )
    for process in proc.iterdir():
        if not process.name.isdigit():
            continue
        try:
            numbers = {os.stat(task / "ns/net").st_ino for task in (process / "task").iterdir()}
        except PermissionError:
            if process.name == "1" or _has_ended(process):
                continue  # process 1 is an ancestor of the engine, and in no sandbox
            raise RequestRefused(
                "processes of other users cannot be read, so it is unknown who uses a sandbox: run this "
                "as root"
            ) from None
        except OSError:
            continue  # ended meanwhile
        for number in numbers:
            found.setdefault(number, []).append(int(process.name))
    return found


def _has_ended(process: Path) -> bool:
    """Whether it is a zombie or gone, and so in no namespace."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (OSError, IndexError):
        return True


def find(directory: Path, known: set[str] | None) -> list[Sandbox]:
    """
    :param known: the names of sandboxes that the engine knows; ``None`` if it did not answer.
    :return: the containers' sandboxes in *directory*.
    """
    processes = processes_by_namespace()
    try:
        paths = sorted(path for path in directory.iterdir() if _CONTAINERS.fullmatch(path.name))
    except FileNotFoundError:
        return []
    found = []
    for path in paths:
        try:
            is_mounted = path.stat().st_dev == os.stat("/proc/self/ns/net").st_dev
            number = path.stat().st_ino
        except OSError:
            continue  # removed meanwhile
        found.append(
            Sandbox(
                path,
                is_mounted,
                tuple(sorted(processes.get(number, ()))) if is_mounted else (),
                None if known is None else path.name in known,
                _our_links(path) if is_mounted else (),
            )
        )
    return found


def _our_links(path: Path) -> tuple[str, ...]:
    try:
        return tuple(
            name for name, alias in links_in(str(path)).items() if alias.startswith(ALIAS_PREFIX + "/")
        )
    except LinkError:
        return ()


def describe(sandbox: Sandbox) -> str:
    parts = []
    if not sandbox.is_mounted:
        parts.append("nothing is mounted there any more")
    elif sandbox.processes:
        parts.append(f"in use by process {', '.join(map(str, sandbox.processes[:5]))}")
    else:
        parts.append("no process lives in it")
    parts.append(
        {
            True: "the engine knows it",
            False: "the engine does not know it",
            None: "whether an engine knows it is open",
        }[sandbox.is_known]
    )
    if sandbox.links:
        parts.append(f"links of ours inside: {', '.join(sandbox.links)}")
    return f"{sandbox.path}: {'; '.join(parts)}"


def run(
    config: Config,
    directory: Path,
    remove: bool,
    engine_is_gone: bool,
    echo: Callable[[str], None] = print,
    wait: Callable[[float], None] = time.sleep,
) -> int:
    """
    Report the sandboxes in *directory*, and remove the stale ones.

    :param remove: whether to remove them.
    :param engine_is_gone: whether an engine that does not answer knows no sandbox.
    :return: the exit status.
    :raises RequestRefused: it cannot be found out whether a sandbox is in use.
    """

    def find_again() -> list[Sandbox]:
        return find(directory, _ask_engine(config, engine_is_gone, is_needed=remove))

    found = find_again()
    for sandbox in found:
        echo(describe(sandbox))
    left = [each for each in found if each.is_stale]
    if not found:
        echo(f"no sandboxes in {directory}")
    if not remove:
        if left:
            echo(f"{len(left)} left behind: remove them with macvlan-twisted sandboxes --remove")
        return 0
    if left:
        wait(CONFIRMATION_DELAY)
    still = {each.path for each in find_again() if each.is_stale}
    failed = False
    for sandbox in left:
        if sandbox.path not in still:
            echo(f"stays, somebody has it now: {sandbox.path}")
            continue
        try:
            unmount_and_remove(sandbox.path)
        except OSError as error:
            failed = True
            echo(f"stays: {sandbox.path}: {error.strerror}")
        else:
            echo(f"removed: {sandbox.path}")
    return 1 if failed else 0


def _ask_engine(config: Config, engine_is_gone: bool, is_needed: bool) -> set[str] | None:
    try:
        if not config.docker_host:
            # Remedy: set --docker-host to the engine's socket.
            raise EngineUnavailable("the engine's API is disabled by --docker-host none")
        return engine_sandboxes(BlockingEngineClient(config.docker_host))
    except (EngineUnavailable, EngineError) as error:
        if engine_is_gone and isinstance(error, EngineUnavailable):
            return set()
        if is_needed:
            raise RequestRefused(
                f"the engine on {config.docker_host or 'no socket'} does not list its sandboxes "
                f"({error}): start it, or set --docker-host to its socket, or add --engine-is-gone if "
                "there is none any more"
            ) from None
        return None


def unmount_and_remove(path: Path) -> None:
    """
    Unmount a sandbox and remove its file. The kernel removes the namespace and its links once no process is in it.

    :raises OSError: the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with _REMOVE:
        while path.stat().st_dev == os.stat("/proc/self/ns/net").st_dev:  # it may be mounted several times
            if libc.umount2(os.fsencode(path), _MNT_DETACH) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
        path.unlink()


def unused_sandboxes(directory: Path) -> set[Path]:
    """:return: mounted sandboxes without a process; empty if that cannot be found out."""
    try:
        return {each.path for each in find(directory, None) if each.is_mounted and not each.processes}
    except (RequestRefused, OSError):
        return set()


async def warn_of_stale_sandboxes(
    run_in_thread: RunInThread, clock: Any, directory: Path = Path(DIRECTORY)
) -> None:
    """
    Warn, in the background after a start, of sandboxes that have had no process for a while.

    :param clock: ``IReactorTime``
    """
    empty = await run_in_thread(unused_sandboxes, directory)
    if not empty:
        return
    await deferLater(clock, 3 * CONFIRMATION_DELAY)
    left = empty & await run_in_thread(unused_sandboxes, directory)
    if left:
        # Cause: an engine was killed and left network namespaces mounted; links in them keep parents busy. Remedy: run
        # ``macvlan-twisted sandboxes``, which shows what to remove.
        _log.warn(
            "stale sandboxes: {number} mounted without a process ({paths}); list them with: macvlan-twisted "
            "sandboxes",
            number=len(left),
            paths=", ".join(sorted(map(str, left))[:5]),
        )
