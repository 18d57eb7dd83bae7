"""Sandboxes of containers in memory, for tests without root."""

from __future__ import annotations

import errno

from attrs import define, field

from ..addresses import IPAddress, IPInterface
from ..errors import LinkError
from ..netlink.kernel import Readdress


@define
class FakeSandbox:
    """The IPv4 configuration of a sandbox with one link."""

    mac: str
    addresses: list[IPInterface] = field(factory=list)
    router: IPAddress | None = None


class FakeSandboxes:
    """
    :class:`~macvlan_twisted.netlink.kernel.Sandboxes` in memory.

    Its contract tests are in tests/contracts/sandbox_contract.py.
    """

    def __init__(self) -> None:
        self.by_path: dict[str, FakeSandbox] = {}
        self.lacks = ""
        """Why the process cannot enter sandboxes; empty if it can."""
        self.fails = 0
        """The errno of a change that fails half-way; 0 for success."""

    def lacking(self) -> str:
        return self.lacks

    def is_there(self, path: str) -> bool:
        return path in self.by_path

    def move(self, path: str, move: Readdress) -> tuple[str, ...]:
        sandbox = self.by_path.get(path)
        if sandbox is None:
            raise LinkError(f"cannot open sandbox {path}: it is not there", errno.ENOENT)
        if self.lacks:
            raise LinkError(self.lacks, errno.EPERM)
        if sandbox.mac != move.mac:
            raise LinkError(f"no link in the sandbox {path} has MAC {move.mac}", errno.ENODEV)
        if self.fails:
            raise LinkError("a test refuses it", self.fails)
        sandbox.addresses = [
            each for each in sandbox.addresses if each.ip not in (*move.leaving, move.arriving.ip)
        ]
        sandbox.addresses.append(move.arriving)
        if sandbox.router in move.routers_before:
            sandbox.router = move.router
        return ()
