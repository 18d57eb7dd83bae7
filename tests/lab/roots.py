"""File systems with other engines than the machine's own, out of other Debian releases.

They are made once, by debootstrap, from the mirror that apt uses on this machine, and kept in
``$MACVLAN_TWISTED_CACHE`` or ``~/.cache/macvlan-twisted``. Half a gigabyte each; removing one makes it anew.
"""

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.commands import CommandFailed, Narrate, run

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
"""Where the programs of an engine are looked for: the distribution's, never what else the machine may have."""


def _own_version() -> str:
    """Ask the machine's dockerd which it is; without one, answer as Debian 12 would."""
    try:
        told = run("dockerd", "--version", env={"PATH": PATH})
    except (OSError, CommandFailed):
        return "20.10"
    found = re.search(r"version (\d+\.\d+)\.", told)
    return found[1] if found else "20.10"


OWN_VERSION = _own_version()
"""The machine's own engine. The others come from elsewhere."""
RELEASES = {"20.10": "bookworm", "26.1": "trixie", "28.5": "forky"}
"""Versions, and the Debian releases that hold them."""
VERSIONS = tuple(dict.fromkeys((OWN_VERSION, *RELEASES)))
COMPOSES = {"1.29.2": "20.10", "2.26.1": "26.1", "2.40.3": "28.5"}
"""Versions of Docker Compose, and the engines that the same Debian releases hold."""
PACKAGES = ("docker.io", "docker-compose", "busybox-static", "iproute2")
CLIENT_IN_ENGINE = ("bookworm",)
"""Releases whose package docker.io has the client in it; the others have a package docker-cli."""
SCRIPT = "/usr/share/debootstrap/scripts/sid"
"""Serves every release since Debian 12; an older debootstrap does not know the younger names."""
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def cache() -> Path:
    """Return the directory in which finished roots are kept."""
    chosen = os.environ.get("MACVLAN_TWISTED_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "macvlan-twisted"


def root_of(version: str, narrate: Narrate | None = None) -> Path | None:
    """Return the directory in which the engine of this version is installed, None for the machine's own.

    The first time that takes about a minute, and `narrate` hears of it. Several processes may ask at once.
    """
    if version == OWN_VERSION:
        return None
    if version not in RELEASES:
        raise ValueError(f"no engine of version {version!r} here; there are {', '.join(VERSIONS)}")
    root = cache() / f"engine-{version}"
    if not _is_complete(root):
        root.parent.mkdir(parents=True, exist_ok=True)
        with lock(root.with_suffix(root.suffix + ".lock")):
            if not root.is_dir():
                _make(version, root, narrate or print)
            elif not _is_complete(root):
                _complete(root)
    return root


def _is_complete(root: Path) -> bool:
    return (root / "usr/bin/docker-compose").exists()


def _complete(root: Path) -> None:
    """Add Docker Compose to a root that was made without; engines may run in it meanwhile."""
    own = ("unshare", "--mount", "--propagation", "private", "--", "chroot", str(root), "apt-get")
    environment = {**os.environ, **_proxy(), "DEBIAN_FRONTEND": "noninteractive"}
    # As debootstrap, which does not look how old the archive is.
    run(*own, "update", "-o", "Acquire::Check-Valid-Until=false", timeout=600, env=environment)
    install = ("install", "--yes", "--no-install-recommends", "docker-compose")
    run(*own, *install, timeout=600, env=environment)
    run(*own, "clean", env=environment)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold a lock on a file; other processes that ask for it wait."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released by the kernel when we close the file, or die
        yield


def _make(version: str, root: Path, narrate: Narrate) -> None:
    release = RELEASES[version]
    for left in root.parent.glob(f"{root.name}.unfinished-*"):
        shutil.rmtree(left)
    building = Path(tempfile.mkdtemp(prefix=f"{root.name}.unfinished-", dir=root.parent))
    narrate(
        f"Docker Engine {version}: installing it from Debian {release} into {root} (once, about a minute)"
    )
    # In namespaces of its own debootstrap leaves no mount behind, however it ends, and it ends with us.
    own = (
        "setpriv",
        "--pdeathsig",
        "KILL",
        "--",
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    )
    packages = PACKAGES if release in CLIENT_IN_ENGINE else (*PACKAGES, "docker-cli")
    options = ("--variant=minbase", f"--include={','.join(packages)}", f"--keyring={KEYRING}")
    command = (*own, "debootstrap", *options, release, str(building), mirror(), SCRIPT)
    run(*command, timeout=1800, env={**os.environ, **_proxy()})
    told = run("chroot", str(building), "/usr/sbin/dockerd", "--version")
    if f" {version}." not in told:
        raise RuntimeError(f"Debian {release} has moved on: expected Docker {version}, but it holds {told}")
    for archive in (building / "var/cache/apt/archives").glob("*.deb"):
        archive.unlink()
    building.chmod(0o755)
    building.rename(root)
    narrate(f"Docker Engine {version}: ready")


def mirror() -> str:
    """Return the address of the Debian archive that this machine's apt is set up to use."""
    fields = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)"
    told = run("apt-get", "indextargets", "--format", fields, "Created-By: Packages")
    known = {codename(), "stable", "testing", "sid", "unstable"}
    for line in told.splitlines():
        address, release, component = line.split("|")
        if release in known and component == "main":
            return address
    raise RuntimeError("apt knows no Debian archive here (no source for a whole release, component main)")


def codename() -> str:
    """Return the name of this machine's Debian release."""
    for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition("=")
        if name == "VERSION_CODENAME":
            return value.strip('"')
    return "stable"


def _proxy() -> dict[str, str]:
    """Say by which proxy apt goes, if by any, in the words that debootstrap's wget understands."""
    told = run("apt-config", "shell", "PROXY", "Acquire::http::Proxy").strip()
    return {"http_proxy": told.removeprefix("PROXY=").strip("'")} if told else {}
