"""The containers' network namespaces."""

from __future__ import annotations

from ..engine.interfaces import EngineError, EngineUnavailable, Processes
from ..netlink.kernel import Readdress, Sandboxes
from ..netlink.netns import sandbox_of_process
from ..worker_threads import RunInThread
from .models import Endpoint


class ContainerSandboxes:
    """
    Enters them from worker threads.

    :param processes: the engine, which is asked where a sandbox is that the file system does not show.
    """

    def __init__(self, sandboxes: Sandboxes, run: RunInThread, processes: Processes) -> None:
        self._sandboxes = sandboxes
        self._run = run
        self._processes = processes

    async def lacking(self) -> str:
        """What this process lacks to change anything in a sandbox; empty if nothing."""
        return await self._run(self._sandboxes.lacking)

    async def locate(self, endpoint: Endpoint) -> str:
        """The path of the container's sandbox as seen from here; empty if it is unknown."""
        if endpoint.sandbox:
            is_there: bool = await self._run(self._sandboxes.is_there, endpoint.sandbox)
            if is_there:
                return endpoint.sandbox
        try:
            pid = await self._processes.process_of(endpoint.network_id, endpoint.endpoint_id)
        except (EngineUnavailable, EngineError):
            pid = None
        return endpoint.sandbox if pid is None else sandbox_of_process(pid)

    async def move(self, path: str, move: Readdress) -> tuple[str, ...]:
        """
        :return: routes that could not be kept.
        :raises LinkError: nothing has changed.
        """
        return await self._run(self._sandboxes.move, path, move)
