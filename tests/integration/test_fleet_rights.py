"""A host of a fleet under the systemd unit, with certificates that are made as the manual says."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

from tests.integration.conftest import need
from tests.integration.dhcp_hosts import SUBNET
from tests.lab.certificates import Authority, Certificate
from tests.lab.commands import run, wait_until
from tests.lab.docker_host import DockerHost
from tests.lab.engine import Engine
from tests.lab.etcd import Cluster
from tests.lab.plugin import CHECKOUT, Plugin
from tests.lab.requirements import missing_for_etcd
from tests.lab.systemd import Systemd, missing_for_systemd

pytestmark = pytest.mark.one_engine

PAGE = CHECKOUT / "docs" / "howto" / "fleet-etcd.rst"
FILES = {"CA": "ca.pem", "CERT": "plugin-a.pem", "KEY": "plugin-a.key"}
PLACE = "/etc/macvlan-twisted"


class ManualsAuthority(Authority):
    """What the script of the manual makes, with the addresses of our LAN."""

    def __init__(self, directory: Path, address: str) -> None:
        """Run the script."""
        block = re.search(
            r"   :caption: certificates.sh\n\n((?:   .*\n|\n)+)", PAGE.read_text(encoding="utf-8")
        )
        assert block is not None
        script = re.sub(r"192\.168\.1\.1[123]", address, block[1])
        run("sh", "-c", f"cd {directory}\n{script}")
        self.directory = directory
        self.own = self._made("ca")

    def issue(
        self, name: str, addresses: tuple[str, ...] = (), *, common_name: str | None = None, days: int = 30
    ) -> Certificate:
        """Answer the first member's certificate, or the plugin's beside it."""
        return self._made("etcd-a" if addresses else "plugin-a")

    def _made(self, name: str) -> Certificate:
        return Certificate(self.directory / f"{name}.pem", self.directory / f"{name}.key")


@pytest.fixture
def cluster(engine: Engine, tmp_path: Path) -> Iterator[Cluster]:
    """Run three members that refuse whoever has no certificate."""
    need(missing_for_systemd() or missing_for_etcd())
    address = engine.lan.addresses.gateway[0].partition("/")[0]
    authority = ManualsAuthority(tmp_path, address)
    with Cluster(engine.lan, ("gateway",) * 3, authority=authority, client_certificates=True) as made:
        yield made


@contextmanager
def service(engine: Engine, cluster: Cluster, *drop_ins: str) -> Iterator[Systemd]:
    """Run the unit as a member of the fleet; its certificate is readable as the manual says."""
    members = ",".join(url.removeprefix("https://") for url in cluster.endpoints)
    names = (f"MACVLAN_TWISTED_FLEET_{option}={PLACE}/{name}" for option, name in FILES.items())
    config = ("MACVLAN_TWISTED_HOST_INTERFACE=eth1", f"MACVLAN_TWISTED_FLEET=etcd://{members}", *names)
    assert cluster.authority is not None
    source = cluster.authority.own.certificate.parent
    with Systemd(engine, *config, drop_ins=drop_ins) as machine:
        machine.run("install", "-d", "-m", "755", PLACE)
        for name in FILES.values():
            machine.path(f"{PLACE}/{name}").write_bytes((source / name).read_bytes())
            machine.run("chgrp", "macvlan-twisted", f"{PLACE}/{name}")
            machine.run("chmod", "640", f"{PLACE}/{name}")
        machine.start()
        machine.wait_until_listening()
        yield machine
        engine.clear()
        machine.stop()


def wait_for(machine: Systemd, words: str) -> None:
    """Wait until the service has logged some words."""
    wait_until(lambda: words in machine.log(), 30, f"{words!r}\n{machine.log()}")


def test_drop_in_suffices_to_reach_etcd(engine: Engine, cluster: Cluster) -> None:
    with service(engine, cluster, "fleet.conf") as machine:
        wait_for(machine, "fleet: connected as host ")
        host = DockerHost(engine, cast(Plugin, machine))
        host.create("lan", "--ipam-driver=macvlan-twisted", *SUBNET)
        address = next(iter(host.start("web").addresses())).partition("/")[0]
        key = f"/macvlan-twisted/lans/default/addresses/{address}"
        wait_until(lambda: '"used"' in cluster.get(key).get(key, ""), 30, f"the claim of {address}")


def test_without_the_drop_in_the_log_says_what_is_missing(engine: Engine, cluster: Cluster) -> None:
    with service(engine, cluster) as machine:
        wait_for(machine, "fleet: etcd is unavailable (")
        assert "install the systemd unit's drop-in fleet.conf" in machine.log(), machine.log()
        assert cluster.get("/macvlan-twisted/") == {}
