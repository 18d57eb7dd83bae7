"""Our service in a process of its own, with a fake kernel and a real socket and state directory."""

from __future__ import annotations

import multiprocessing
import secrets
import socket
import sqlite3
import time
from ipaddress import ip_address, ip_network
from multiprocessing.process import BaseProcess
from pathlib import Path

from macvlan_twisted.config import Config
from macvlan_twisted.link_names import endpoint_link_name
from macvlan_twisted.option_values import ProbeTimeout

from . import service_process
from .address_ledger import Leftovers
from .host_kernel import HostKernel, lend

#: The NICs of the host on which the conversations were recorded, with addresses of the host.
NICS = {"eth1": ("192.0.2.10/24", "2001:db8:2::10/64"), "eth2": (), "eth1p": (), "eth2p": ()}

#: Seconds until a process has to be there, or gone. Both take a tenth of one.
PATIENCE = 200.0

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([service_process.__name__])


def link_of_endpoint(endpoint_id: str) -> str:
    """The name by which the service knows an endpoint's link."""
    return endpoint_link_name(endpoint_id)


class ServiceUnderTest:
    """Can be started, stopped and killed repeatedly; state and kernel stay."""

    def __init__(self, directory: Path) -> None:
        self.kernel = HostKernel(NICS)
        self.log_path = directory / "service.log"
        # An abstract socket, which needs no clean-up.
        self._kernel_address = f"\0fake-kernel-{secrets.token_hex(8)}"
        self._secret = secrets.token_bytes(16)
        self._settings = Config(
            plugin_dir=str(directory / "plugins"),
            state_dir=str(directory / "state"),
            runtime_dir=str(directory / "run"),
            host_interface="eth1",
            subnets=(ip_network("192.0.2.0/24"), ip_network("2001:db8:2::/64")),
            gateways=(ip_address("192.0.2.1"), ip_address("2001:db8:2::1")),
            # The fake LAN has no other hosts, so a short wait suffices.
            probe_timeout=ProbeTimeout(0.02),
        )
        self._process: BaseProcess | None = None
        lend(self.kernel, self._kernel_address, self._secret)

    @property
    def socket_path(self) -> str:
        return self._settings.socket_path

    @property
    def sandboxes(self) -> HostKernel:
        return self.kernel

    def start(self) -> None:
        """Returns when the service answers its socket."""
        assert self._process is None, "the service runs already"
        arguments = (self._settings, self._kernel_address, self._secret, str(self.log_path))
        self._process = _processes.Process(target=service_process.serve, args=arguments)
        self._process.start()
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            if not self._process.is_alive() or time.monotonic() > deadline:
                raise AssertionError(f"the service does not start:\n{self.log_path.read_text()}")
            time.sleep(0.005)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(self.socket_path)
            except OSError:
                return False
        return True

    def stop(self) -> None:
        """SIGTERM, and wait for the end."""
        if self._process is not None:
            process, self._process = self._process, None
            process.terminate()
            process.join(PATIENCE)
            hangs = process.is_alive()
            process.kill()
            assert not hangs, "the service does not end on SIGTERM"
            assert process.exitcode == 0, f"exit status {process.exitcode}:\n{self.log_path.read_text()}"

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            process.join()

    def leftovers(self) -> Leftovers:
        """What is in state and in the kernel; the service has to be stopped."""
        assert self._process is None, "the service holds its state"
        database = sqlite3.connect(Path(self._settings.state_dir) / "state.sqlite")
        try:
            links = self.kernel.made_links() | _ids(database, "made_links")
            host_links = {link for link in links if link.startswith("mvh")}
            return Leftovers(
                networks=_ids(database, "networks"),
                endpoints=_ids(database, "endpoints"),
                pools=_ids(database, "pools"),
                addresses=frozenset(database.execute("SELECT pool_id, address FROM addresses")),
                links=frozenset(links - host_links),
                host_links=frozenset(links & host_links),
            )
        finally:
            database.close()

    def errors_in_log(self) -> list[str]:
        """Lines of the log that show a bug: tracebacks and critical events."""
        lines = self.log_path.read_text().splitlines() if self.log_path.exists() else []
        return [line for line in lines if "#critical]" in line or line.startswith("Traceback")]


def _ids(database: sqlite3.Connection, table: str) -> frozenset[str]:
    return frozenset(str(row[0]) for row in database.execute(f"SELECT id FROM {table}"))


__all__ = ["NICS", "ServiceUnderTest", "link_of_endpoint"]
