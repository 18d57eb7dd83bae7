"""What every :class:`macvlan_twisted.netlink.kernel.Sandboxes` must do, the real one and the fake alike.

Subclasses give a fixture ``sandbox``.
"""

import errno
from ipaddress import ip_address, ip_interface
from typing import Protocol

import pytest
from attrs import evolve

from macvlan_twisted.errors import LinkError
from macvlan_twisted.netlink.kernel import Readdress, Sandboxes

MAC = "7a:42:c0:a8:4d:64"
OLD, NEW = "192.168.77.100/24", "192.168.77.150/24"
ROUTER, OTHER_ROUTER = "192.168.77.1", "192.168.77.2"
MOVE = Readdress(
    MAC, (ip_address("192.168.77.100"),), ip_interface(NEW), (ip_address(ROUTER),), ip_address(OTHER_ROUTER)
)
ELSEWHERE = evolve(MOVE, arriving=ip_interface("10.9.0.5/16"), router=ip_address("10.9.0.1"))


class SandboxFixture(Protocol):
    """One sandbox whose link has :data:`MAC`, the address :data:`OLD` and a default route to :data:`ROUTER`."""

    @property
    def sandboxes(self) -> Sandboxes:
        """The sandboxes under test."""

    @property
    def path(self) -> str:
        """The path of the sandbox."""

    def addresses(self) -> set[str]:
        """Return the link's IPv4 addresses."""

    def routers(self) -> set[str]:
        """Return the gateways of default routes."""


class SandboxContract:
    """The tests themselves."""

    def test_permitted_moves_lack_nothing(self, sandbox: SandboxFixture) -> None:
        assert sandbox.sandboxes.lacking() == ""

    def test_sandbox_is_recognized(self, sandbox: SandboxFixture) -> None:
        assert sandbox.sandboxes.is_there(sandbox.path)
        assert not sandbox.sandboxes.is_there("/run/nowhere/netns/0123456789ab")

    def test_container_has_the_new_address_and_router(self, sandbox: SandboxFixture) -> None:
        assert sandbox.sandboxes.move(sandbox.path, MOVE) == ()
        assert (sandbox.addresses(), sandbox.routers()) == ({NEW}, {OTHER_ROUTER})

    def test_container_has_a_route_in_another_subnet(self, sandbox: SandboxFixture) -> None:
        assert sandbox.sandboxes.move(sandbox.path, ELSEWHERE) == ()
        assert (sandbox.addresses(), sandbox.routers()) == ({"10.9.0.5/16"}, {"10.9.0.1"})

    def test_repetition_changes_nothing(self, sandbox: SandboxFixture) -> None:
        for _ in range(2):
            sandbox.sandboxes.move(sandbox.path, MOVE)
        assert (sandbox.addresses(), sandbox.routers()) == ({NEW}, {OTHER_ROUTER})

    def test_default_route_goes_without_a_router(self, sandbox: SandboxFixture) -> None:
        sandbox.sandboxes.move(sandbox.path, evolve(ELSEWHERE, router=None))
        assert sandbox.routers() == set()

    def test_default_route_to_another_router_stays(self, sandbox: SandboxFixture) -> None:
        sandbox.sandboxes.move(sandbox.path, evolve(MOVE, routers_before=(ip_address("192.168.77.9"),)))
        assert (sandbox.addresses(), sandbox.routers()) == ({NEW}, {ROUTER})

    def test_sandbox_without_the_mac_is_left_unchanged(self, sandbox: SandboxFixture) -> None:
        with pytest.raises(LinkError, match="7a:42:00:00:00:99") as refused:
            sandbox.sandboxes.move(sandbox.path, evolve(MOVE, mac="7a:42:00:00:00:99"))
        assert refused.value.errno == errno.ENODEV
        assert (sandbox.addresses(), sandbox.routers()) == ({OLD}, {ROUTER})

    def test_vanished_sandbox_is_reported(self, sandbox: SandboxFixture) -> None:
        with pytest.raises(LinkError, match="/run/nowhere/netns/0123456789ab") as refused:
            sandbox.sandboxes.move("/run/nowhere/netns/0123456789ab", MOVE)
        assert refused.value.errno == errno.ENOENT
