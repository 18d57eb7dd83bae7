"""The files of ``systemd/``: what systemd's own programs think of them, and what must stand in them."""

import re
import shutil
from pathlib import Path

import pytest

from tests.integration.conftest import need
from tests.lab.commands import attempt, run
from tests.lab.plugin import CHECKOUT

UNITS = CHECKOUT / "systemd"
SERVICE = (UNITS / "macvlan-twisted.service").read_text(encoding="utf-8")
MOST_EXPOSED = 20
"""Of a hundred, as ``systemd-analyze security`` counts: a service of root's without any option has 96."""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Give a directory with our units, whose program is one that is there."""
    need("" if shutil.which("systemd-analyze") else "no systemd-analyze: apt-get install systemd")
    program = re.search(r"^ExecStart=(\S+)", SERVICE, re.MULTILINE)
    assert program is not None
    for path in UNITS.iterdir():
        (tmp_path / path.name).write_text(path.read_text().replace(program[1], "/bin/true"))
    return tmp_path


def complaints(here: Path) -> list[str]:
    """Return what ``systemd-analyze verify`` has to say of our units."""
    output = attempt("systemd-analyze", "verify", *map(str, sorted(here.glob("macvlan-twisted.s*[et]"))))
    return [line for line in output.stderr.splitlines() if "macvlan-twisted" in line]


def test_systemd_accepts_the_units(here: Path) -> None:
    assert complaints(here) == []
    for name in ("readdress.conf", "engine-api.conf", "fleet.conf"):
        dropped = here / "macvlan-twisted.service.d"
        dropped.mkdir(exist_ok=True)
        shutil.copy(UNITS / name, dropped)
        assert complaints(here) == []
    (dropped / "wrong.conf").write_text("[Service]\nProtectEverything=yes\n")
    assert complaints(here) != [], "nothing would be noticed"


def test_service_exposure_stays_low(here: Path) -> None:
    output = attempt(
        *("systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager"),
        str(here / "macvlan-twisted.service"),
    )
    assert output.status == 0, output


def test_sysusers_creates_the_services_user(here: Path) -> None:
    root = here / "root"
    (root / "etc").mkdir(parents=True)
    run("systemd-sysusers", f"--root={root}", str(here / "macvlan-twisted.sysusers"))
    users = (root / "etc" / "passwd").read_text().splitlines()
    (user,) = [line for line in users if line.startswith("macvlan-twisted:")]
    assert user.endswith(":/var/lib/macvlan-twisted:/usr/sbin/nologin")
    named = re.findall(r"^(?:User|Group)=(.*)$", SERVICE, re.MULTILINE)
    assert named == ["macvlan-twisted", "macvlan-twisted"]


def test_service_starts_before_docker_and_its_socket_is_private() -> None:
    assert "Before=docker.service" in SERVICE
    assert "SocketMode=0600" in (UNITS / "macvlan-twisted.socket").read_text()
    program = re.search(r"^ExecStart=\S+(.*)$", SERVICE, re.MULTILINE)
    assert program is not None
    assert program[1].split()[:3] == ["--nodaemon", "--pidfile=", "macvlan"]


def test_all_unit_files_are_packaged_and_documented() -> None:
    packed = (CHECKOUT / "setup.cfg").read_text(encoding="utf-8")
    output = (CHECKOUT / "docs" / "reference" / "files.rst").read_text(encoding="utf-8")
    for path in UNITS.iterdir():
        assert f"    systemd/{path.name}\n" in packed
        assert f"``{path.name}``" in output, path.name


def test_every_unit_option_has_its_reason_above_it() -> None:
    """The unit's comments, which the page about security shows, also say why some options are missing."""
    _, _, service = SERVICE.partition("[Service]\n")
    paragraphs = service.partition("\n\n[Install]")[0].split("\n\n")
    assert [each for each in paragraphs if not each.startswith("# ")] == []
    reasons = "\n".join(re.findall("^# .*", SERVICE, re.MULTILINE))
    for absent in ("ProtectKernelTunables", "ProcSubset", "PrivateNetwork", "PrivateUsers", "RootDirectory"):
        assert f"\n{absent}=" not in SERVICE
        assert absent in reasons
    page = (CHECKOUT / "docs" / "explanation" / "security.rst").read_text(encoding="utf-8")
    assert ".. literalinclude:: ../../systemd/macvlan-twisted.service" in page
