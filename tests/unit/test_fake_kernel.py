"""The fake kernel fulfils the contract of the real one."""

import threading
from collections.abc import Callable

import pytest

from macvlan_twisted.netlink.kernel import DefaultRoute, LinkFacts
from macvlan_twisted.testing.kernel import FakeKernel, nic
from tests.contracts.host_network_contract import HostNetworkContract
from tests.contracts.kernel_contract import OWN_ADDRESS, ROUTER, KernelContract


class FakeHost:
    """The fake, with the links that the contract needs."""

    def __init__(self) -> None:
        """Make a host with two NICs."""
        self.kernel = FakeKernel(
            [nic("eth1", 2), nic("eth2", 3)], [DefaultRoute("eth1", ROUTER, 0)], {"eth1": [OWN_ADDRESS]}
        )
        self._away: dict[str, LinkFacts] = {}

    def move_away(self, name: str, *, up: bool = False) -> None:
        """Move a link away."""
        self._away[name] = self.kernel.move_away(name, up=up)

    def move_back(self, name: str) -> None:
        """Move it back."""
        self.kernel.move_back(self._away.pop(name))

    def setting(self, name: str, key: str) -> str:
        """Read a sysctl of a link."""
        return self.kernel.configured[name][key]

    def in_threads(self, number: int, work: Callable[[int], None]) -> None:
        """Call `work` in plain threads."""
        threads = [threading.Thread(target=work, args=(each,)) for each in range(number)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


@pytest.fixture
def host() -> FakeHost:
    """Give a fresh fake."""
    return FakeHost()


class TestFakeKernel(KernelContract):
    """All of the contract."""


class TestFakeHostNetwork(HostNetworkContract):
    """All of the contract."""
