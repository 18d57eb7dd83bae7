"""The programs of several etcd releases, out of Debian packages.

The packages come from the mirror that apt uses on this machine, are checked by apt, and are unpacked, not installed,
into ``$MACVLAN_TWISTED_CACHE`` or ``~/.cache/macvlan-twisted``: 70 megabytes each.
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.lab.commands import Narrate, run
from tests.lab.roots import KEYRING, cache, codename, lock, mirror

RELEASES = {"3.4.23": "bookworm", "3.5.16": "trixie", "3.5.30": "forky"}
"""Versions of etcd, and the Debian releases that hold them."""
VERSIONS = tuple(RELEASES)
OWN_VERSION = next((version for version, release in RELEASES.items() if release == codename()), VERSIONS[0])
"""The version that this machine's distribution offers."""
PACKAGES = ("etcd-server", "etcd-client")


@dataclass(frozen=True)
class Binaries:
    """Where the programs of one etcd release are."""

    etcd: Path
    etcdctl: Path
    restorer: Path
    """The program that knows ``snapshot restore`` best: etcdutl, or etcdctl of a release that has no etcdutl."""


def directory_of(version: str) -> Path:
    """Return the directory in which the programs of a version are, or will be."""
    if version not in RELEASES:
        raise ValueError(f"no etcd of version {version!r} here; there are {', '.join(VERSIONS)}")
    return cache() / f"etcd-{version}"


def binaries(version: str = OWN_VERSION, narrate: Narrate | None = None) -> Binaries:
    """Return the programs of an etcd release; the first time they are downloaded, and `narrate` hears of it.

    Several processes may ask at once.
    """
    directory = directory_of(version)
    if not directory.is_dir():
        directory.parent.mkdir(parents=True, exist_ok=True)
        with lock(directory.with_name(f"{directory.name}.lock")):
            if not directory.is_dir():
                _make(version, directory, narrate or print)
    programs = directory / "usr" / "bin"
    tool = programs / "etcdutl"
    return Binaries(programs / "etcd", programs / "etcdctl", tool if tool.exists() else programs / "etcdctl")


def _make(version: str, directory: Path, narrate: Narrate) -> None:
    release = RELEASES[version]
    for left in directory.parent.glob(f"{directory.name}.unfinished-*"):
        shutil.rmtree(left)
    building = Path(tempfile.mkdtemp(prefix=f"{directory.name}.unfinished-", dir=directory.parent))
    narrate(
        f"etcd {version}: downloading it from Debian {release} into {directory} (once, about half a minute)"
    )
    for package in _download(release, building / "apt"):
        run("dpkg", "--extract", str(package), str(building))
    told = run(str(building / "usr/bin/etcd"), "--version")
    if f"etcd Version: {version}\n" not in told:
        raise RuntimeError(f"Debian {release} has moved on: expected etcd {version}, but it holds {told}")
    shutil.rmtree(building / "apt")
    building.chmod(0o755)
    building.rename(directory)
    narrate(f"etcd {version}: ready")


def _download(release: str, apt: Path) -> list[Path]:
    """Download the packages with an apt that has lists of its own, and leaves the machine's as they are."""
    for name in ("lists/partial", "archives/partial"):
        (apt / name).mkdir(parents=True)
    # As debootstrap, which does not look how old the archive is.
    source = f"deb [signed-by={KEYRING} check-valid-until=no] {mirror()} {release} main\n"
    (apt / "sources.list").write_text(source, encoding="utf-8")
    settings = {
        "APT::Sandbox::User": "root",  # the usual user cannot write here
        "Acquire::Languages": "none",
        "Dir::Cache": str(apt),
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "Dir::Etc::SourceList": str(apt / "sources.list"),
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State": str(apt),
        "Dir::State::Status": "/dev/null",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    run("apt-get", *options, "update", timeout=600)
    # `apt-get download` writes into the directory in which it runs.
    command = ("env", f"--chdir={apt}", "apt-get", *options, "download", *PACKAGES)
    run(*command, timeout=600)
    return sorted(apt.glob("*.deb"))
