"""What the lab needs of a machine."""

import os
import shutil

from tests.lab import etcd_binaries
from tests.lab.roots import COMPOSES, OWN_VERSION, cache
from tests.lab.wall_clock import LIBRARY

LAN_PROGRAMS = ("ip", "nsenter", "ping", "setpriv", "tcpdump")
PACKAGES = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "unshare": "util-linux",
    "ping": "iputils-ping",
    "dnsmasq": "dnsmasq-base",
}
PACKAGES |= {"dockerd": "docker.io", "docker": "docker.io"}
"""The Debian packages of those programs whose package has another name."""


def missing_for_lan() -> str:
    """Say why no :class:`tests.lab.lan.Lan` can be made here; nothing when it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    return _missing_programs(LAN_PROGRAMS)


def missing_for_engine(version: str) -> str:
    """Say why an engine of this version cannot run here; nothing when it can."""
    programs = ["unshare"]
    if version == OWN_VERSION:
        programs += ["dockerd", "docker"]
    elif not (cache() / f"engine-{version}").is_dir():
        programs.append("debootstrap")
    return missing_for_lan() or _missing_programs(programs)


def missing_for_compose(version: str) -> str:
    """Say why a Docker Compose of this version cannot run here; nothing when it can."""
    missing = missing_for_engine(COMPOSES[version])
    if COMPOSES[version] == OWN_VERSION:
        missing = missing or _missing_programs(("docker-compose",))
    return missing


def missing_for_dhcp() -> str:
    """Say why no DHCP server can run on a LAN here; nothing when it can."""
    return missing_for_lan() or _missing_programs(("dnsmasq",))


def missing_for_etcd(version: str = etcd_binaries.OWN_VERSION) -> str:
    """Say why no :class:`tests.lab.etcd.Cluster` of this version can run here; nothing when it can."""
    programs = ["openssl"]
    if not etcd_binaries.directory_of(version).is_dir():
        programs += ["apt-get", "dpkg"]
    return missing_for_lan() or _missing_programs(programs)


def missing_for_wall_clock() -> str:
    """Say why no process can get a time of day of its own here; nothing when it can."""
    return "" if LIBRARY else "no libfaketime here: apt-get install libfaketime"


def _missing_programs(names: list[str] | tuple[str, ...]) -> str:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    absent = [name for name in names if shutil.which(name, path=path) is None]
    if not absent:
        return ""
    packages = dict.fromkeys(PACKAGES.get(name, name) for name in absent)
    return f"no {', '.join(absent)} here: apt-get install {' '.join(packages)}"
