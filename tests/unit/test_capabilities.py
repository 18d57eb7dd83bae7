"""Which capabilities a process lacks, from what the kernel shows of it."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted import service
from macvlan_twisted.config import Config
from macvlan_twisted.errors import StartupError
from macvlan_twisted.netlink.capabilities import missing_capabilities

from .helpers import fresh_directory


class CapabilityTests(SynchronousTestCase):
    def missing(self, effective: str) -> list[str]:
        status = fresh_directory(self) / "status"
        status.write_text(f"Name:\ttwistd\nCapPrm:\t{'f' * 16}\nCapEff:\t{effective}\n")
        return missing_capabilities(Path(status))

    def test_effective_capabilities_count(self) -> None:
        for effective, missing in (
            ("000001ffffffffff", []),
            ("0000000000003000", []),
            ("0000000000001000", ["CAP_NET_RAW"]),
            ("0000000000002000", ["CAP_NET_ADMIN"]),
            ("0000000000000000", ["CAP_NET_ADMIN", "CAP_NET_RAW"]),
        ):
            self.assertEqual(self.missing(effective), missing)

    def test_start_without_them_is_refused_before_anything_is_touched(self) -> None:
        self.patch(service, "missing_capabilities", lambda: ["CAP_NET_ADMIN", "CAP_NET_RAW"])
        state = fresh_directory(self) / "state"
        with self.assertRaises(StartupError) as caught:
            service.make_macvlan_service(Config(state_dir=str(state)), clock=Clock()).startService()
        self.assertIn("without CAP_NET_ADMIN and CAP_NET_RAW: run as root, or", str(caught.exception))
        self.assertFalse(state.exists())
