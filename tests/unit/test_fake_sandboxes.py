"""The sandboxes in memory fulfil the contract of the real ones; which paths count as a sandbox."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

import pytest

from macvlan_twisted.netlink.netns import sandbox_path
from macvlan_twisted.testing.sandboxes import FakeSandbox, FakeSandboxes
from tests.contracts.sandbox_contract import MAC, OLD, ROUTER, SandboxContract


class MemoryStand:
    path = "/var/run/docker/netns/1f2e3d4c5b6a"

    def __init__(self) -> None:
        self.sandboxes = FakeSandboxes()
        self._one = FakeSandbox(MAC, [ip_interface(OLD)], ip_address(ROUTER))
        self.sandboxes.by_path[self.path] = self._one

    def addresses(self) -> set[str]:
        return {str(each) for each in self._one.addresses}

    def routers(self) -> set[str]:
        return set() if self._one.router is None else {str(self._one.router)}


class TestFakeSandboxes(SandboxContract):
    @pytest.fixture
    def sandbox(self) -> MemoryStand:
        return MemoryStand()


@pytest.mark.parametrize(
    "path",
    [
        "/var/run/docker/netns/1f2e3d4c5b6a",
        "/run/user/1000/docker/netns/default_1-2",
        "/run/docker-two/netns/a",
    ],
)
def test_what_engines_say_is_a_sandbox(path: str) -> None:
    assert sandbox_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "netns/1f2e3d4c5b6a",
        "/var/run/docker/netns/",
        "/var/run/docker/netns",
        "/var/run/docker/netns/../../../etc/passwd",
        "/var/run/docker/../netns/1f2e",
        "/var/run//docker/netns/1f2e",
        "/var/run/docker/netns/1f2e\n",
        "/var/run/docker/netns/..",
        "/etc/passwd",
        "/proc/1/ns/net",
        "/netns/\0",
    ],
)
def test_nothing_else_is(path: str) -> None:
    assert sandbox_path(path) == ""
