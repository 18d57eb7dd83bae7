"""The units of ``systemd/``, run by a real systemd beside a real engine: what the service needs works, and no more."""

import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from tests.integration.conftest import need
from tests.integration.dhcp_hosts import OURS, SUBNET, assert_leased, wait_for_plugin, wait_for_release
from tests.lab.commands import attempt, wait_until
from tests.lab.dhcp_server import DhcpServer
from tests.lab.docker_host import DockerHost, plugin_error
from tests.lab.engine import Engine
from tests.lab.plugin import CHECKOUT, Plugin
from tests.lab.requirements import missing_for_dhcp
from tests.lab.systemd import OURS as UNITS
from tests.lab.systemd import Systemd, missing_for_systemd
from tests.lab.unix_http import answers

pytestmark = pytest.mark.one_engine

NIC = "MACVLAN_TWISTED_HOST_INTERFACE=eth1"
ADDRESSED = ("--ipam-driver=macvlan-twisted", *SUBNET)
DUAL = (*ADDRESSED, "--ipv6", "--subnet=fd77::/64", "--gateway=fd77::1")
RIGHTS = {"NET_ADMIN": 12, "NET_RAW": 13}
SYS_ADMIN, DAC_READ_SEARCH = 21, 2
TRESPASSES = (CHECKOUT / "tests" / "lab" / "trespasses.py").read_text(encoding="utf-8")


@pytest.fixture
def machine(engine: Engine, request: pytest.FixtureRequest) -> Iterator[Systemd]:
    """Run systemd with our units beside the engine; afterwards nothing is left of what the service made."""
    need(missing_for_systemd())
    drop_ins = getattr(request, "param", ())
    with Systemd(engine, NIC, drop_ins=drop_ins) as made:
        made.start()
        made.wait_until_listening()
        yield made
        engine.clear()
        made.stop()
        assert host_of(made).remains() == [], made.log()


def host_of(machine: Systemd) -> DockerHost:
    """Return the docker host on which the service runs in that way."""
    return DockerHost(machine.engine, cast(Plugin, machine))


def test_unit_permits_all_that_containers_need(machine: Systemd) -> None:
    """Networks, both families, conflict detection, announcements, host access, and a plain end."""
    host = host_of(machine)
    host.create("lan", *DUAL, "--opt=host_access=true")
    one, two = host.start("one"), host.start("two")
    assert "address 192.168.77.2: not allocated, in use on eth1" in machine.log()
    for address in ("192.168.77.1", "fd77::1", "192.168.77.10"):
        assert one.ping(address), address
    for address in (each.partition("/")[0] for each in two.addresses()):
        assert one.ping(address)
        assert host.lan.ping("neighbour", address)
        assert host.lan.ping("host", address)
    for each in ("warn", "error", "Permission", "not permitted"):
        assert f"#{each}" not in machine.log()
    assert "is in use" in host.start_refusal("--ip=192.168.77.2")
    link = next(name for name in host.links() if name.startswith("mvh"))
    assert host.lan.run_in("host", "cat", f"/proc/sys/net/ipv4/conf/{link}/arp_ignore").strip() == "1"


def test_unit_permits_dhcp_leases(machine: Systemd) -> None:
    need(missing_for_dhcp())
    host = host_of(machine)
    with DhcpServer(host.lan, range="192.168.77.100,192.168.77.119", t1=3, t2=60) as server:
        host.create("lan", *OURS)
        web = host.start("web")
        address = assert_leased(server, web)
        wait_until(lambda: server.count("DHCPACK", web.mac()) >= 2, 20, "a renewal")
        web.remove()
        wait_for_release(server, address)


def test_systemds_socket_outlives_the_service(machine: Systemd) -> None:
    """It is stopped, killed, and stopped again: each time the next call starts it, and nothing is lost."""
    host = host_of(machine)
    place = machine.path("/run/docker/plugins/macvlan-twisted.sock")

    def owned() -> tuple[int, int, int, int]:
        it = place.stat()
        return it.st_ino, it.st_uid, it.st_gid, stat.S_IMODE(it.st_mode)

    before = owned()
    assert before[1:] == (0, 0, 0o600)
    host.create("lan", *ADDRESSED)
    web = host.start("web")
    machine.stop()
    assert machine.shown("ActiveState", UNITS[1]) == "active"
    assert owned() == before
    web.remove()  # the engine's calls start it
    machine.wait_until_listening(2)
    web = host.start("web")
    machine.run("systemctl", "kill", "--signal=KILL", UNITS[0])
    machine.wait_until_listening(3)
    assert machine.shown("NRestarts") == "1"
    assert web.ping("192.168.77.1")
    web.remove()
    machine.run("systemctl", "restart", UNITS[0])
    machine.wait_until_listening(4)
    assert answers(place, "POST", "/Plugin.Activate")
    assert owned() == before
    assert machine.shown("NRestarts") == "0", "an end that was asked for was taken for a failure"


def test_process_has_two_capabilities_only(machine: Systemd) -> None:
    status = machine.status_of_process()
    user = machine.run("id", "-u", "macvlan-twisted").strip()
    assert set(status["Uid"].split()) == {user} != {"0"}
    assert "0" not in status["Gid"].split()
    assert status["Groups"].split() in ([], [machine.run("id", "-g", "macvlan-twisted").strip()])
    both = sum(1 << number for number in RIGHTS.values())
    for each in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[each], 16) == both, each
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"


def test_hijacked_process_can_do_only_what_it_needs(machine: Systemd) -> None:
    """A script under the unit's own options tries it all, once with the drop-in for re-addressing, too."""
    machine.run(
        "sh", "-c", "echo secret >/root/secret; chmod 644 /root/secret; chmod 755 /root; echo x >/home/x"
    )
    with_engine(machine)
    output = json.loads(machine.confined(TRESPASSES))
    done = {name: outcome for name, outcome in output["forbidden"].items() if outcome == "done"}
    assert done == {}
    assert set(output["needed"].values()) == {"done"}, output["needed"]
    assert len(output["forbidden"]) >= 30


def with_engine(machine: Systemd) -> None:
    """Put the engine's API where it is on a real host."""
    machine.run("touch", "/run/docker.sock")
    machine.run("mount", "--bind", str(machine.engine.socket), "/run/docker.sock")
    machine.run("chgrp", "docker", "/run/docker.sock")  # it has another number where the engine comes from


def test_service_files_are_private(machine: Systemd) -> None:
    """Everything that a whole life leaves in the file system; the layer over / has all that was ever written."""
    host = host_of(machine)
    host.create("lan", *ADDRESSED, "--opt=host_access=true")
    host.start("one").remove()
    machine.stop()
    user = int(machine.run("id", "-u", "macvlan-twisted"))
    layer = Path(f"/proc/{machine.init.pid}/root")
    own = ("/var/lib/macvlan-twisted", "/run/macvlan-twisted")
    found = []
    for top in ("/etc", "/var", "/run", "/opt", "/home", "/root", "/srv", "/dev/shm", "/dev/mqueue"):
        # -xdev: what is shared with the engine is looked at by itself
        listed = attempt(
            "find", f"{layer}{top}", "-xdev", "-uid", str(user), "-printf", "%p %m %y\n", timeout=60
        )
        found += [line.removeprefix(str(layer)) for line in listed.stdout.splitlines()]
    assert found, "nothing was found, not even the state"
    for line in found:
        path, mode, kind = line.rsplit(" ", 2)
        assert path.startswith(own), line
        assert mode == ("700" if kind == "d" else "600"), line
        assert kind in "df", line
    plugins = machine.path("/run/docker")
    theirs = attempt("find", str(plugins), "-uid", str(user)).stdout
    assert theirs == ""


def test_state_of_a_service_that_ran_as_root_is_taken_over(machine: Systemd) -> None:
    """The unit before this one had root: systemd gives its files to the new user."""
    host = host_of(machine)
    host.create("lan", *ADDRESSED)
    machine.stop()
    machine.run("chown", "-R", "root:root", "/var/lib/macvlan-twisted")
    machine.start()
    machine.wait_until_listening(2)
    assert "(networks: 1, endpoints: 0)" in machine.log()
    host.start("web").remove()


def test_manual_command_runs_by_hand_as_that_user(machine: Systemd) -> None:
    """With the command of the manual."""
    page = (CHECKOUT / "docs" / "howto" / "install.rst").read_text(encoding="utf-8")
    said = re.search(r"sudo (env (?:.*\\\n)+.*)\n", page)
    assert said is not None
    machine.run("systemctl", "stop", *reversed(UNITS))
    library = "LD_LIBRARY_PATH=/opt/macvlan-twisted/base/lib"
    pid = machine.run("sh", "-c", f"export {library}; (exec {said[1]}) >/dev/null 2>&1 & echo $!").strip()
    place = machine.path("/run/macvlan-twisted/by-hand.sock")
    wait_until(lambda: answers(place, "POST", "/Plugin.Activate"), 30, f"an answer on {place}")
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert machine.run("stat", "--format=%U", f"/proc/{pid}").strip() == "macvlan-twisted"
    machine.run("kill", pid)
    wait_until(lambda: not place.exists(), 30, "its end")
    machine.start()
    machine.wait_until_listening(2)


@pytest.mark.parametrize("machine", [("readdress.conf",)], indirect=True)
def test_readdress_drop_in_suffices_to_move_containers(machine: Systemd) -> None:
    need(missing_for_dhcp())
    host = host_of(machine)
    # As a dockerd makes it that comes before our socket unit
    machine.run("chmod", "0700", "/run/docker")
    with DhcpServer(host.lan, range="192.168.77.100,192.168.77.119", t1=3, t2=60) as server:
        host.create("lan", *OURS, "--opt=dhcp_readdress=true")
        web = host.start("web")
        server.stop()
        server.range = "192.168.77.150,192.168.77.159"
        server.arguments = ("--dhcp-authoritative",)
        server.start()
        wait_for_plugin(host, "address changed from", seconds=40)
        address = assert_leased(server, web)
        web.remove()
        wait_for_release(server, address)


def test_without_the_drop_in_readdress_is_refused(machine: Systemd) -> None:
    words = ("--ipam-driver=null", "--opt=dhcp=true", "--opt=dhcp_readdress=true")
    error = plugin_error(host_of(machine).refusal(*words))
    assert error.startswith("-o dhcp_readdress=true cannot work (")
    assert "CAP_SYS_ADMIN" in error
    assert error.endswith("): grant that, or leave the option out")


@pytest.mark.parametrize("machine", [("engine-api.conf",)], indirect=True)
def test_engine_api_drop_in_opens_the_engines_socket(machine: Systemd) -> None:
    with_engine(machine)
    machine.run("systemctl", "restart", UNITS[0])
    output = machine.confined(
        "import socket\n"
        "with socket.socket(socket.AF_UNIX) as it:\n"
        "    it.connect('/var/run/docker.sock')\n"
        "    it.sendall(b'GET /_ping HTTP/1.0\\r\\n\\r\\n')\n"
        "    print(it.recv(999).decode())\n"
    )
    assert "200 OK" in output


def test_engine_api_is_not_used_by_default(machine: Systemd) -> None:
    """Its socket equals root."""
    with_engine(machine)
    machine.run("chmod", "0666", "/run/docker.sock")
    machine.run("systemctl", "restart", UNITS[0])
    machine.wait_until_listening(2)
    host = host_of(machine)
    host.create("lan", *ADDRESSED)
    host.start("web").remove()
    assert "docker.sock" not in machine.log()
    process = machine.shown("MainPID")
    opened = machine.run("sh", "-c", f"tr '\\0' '\\n' </proc/{process}/environ")
    assert "MACVLAN_TWISTED_DOCKER_HOST=none" in opened.splitlines()


@pytest.mark.parametrize("machine", [("engine-api.conf",)], indirect=True)
def test_network_of_the_manuals_recipe_is_created(machine: Systemd) -> None:
    """With the lines that the page has for ``/etc/default/macvlan-twisted``."""
    page = (CHECKOUT / "docs" / "howto" / "default-network.rst").read_text(encoding="utf-8")
    lines = re.findall(r"^ +(MACVLAN_TWISTED_\w+=\S+)$", page, re.M)
    assert [line.partition("=")[0] for line in lines] == [
        *("MACVLAN_TWISTED_CREATE_NETWORK", "MACVLAN_TWISTED_HOST_INTERFACE", "MACVLAN_TWISTED_IP_RANGE")
    ]
    name = lines[0].partition("=")[2]
    here = [line.replace("192.168.1.", "192.168.77.") for line in lines]
    machine.path("/etc/default/macvlan-twisted").write_text("\n".join([*here, ""]), encoding="ascii")
    with_engine(machine)
    machine.run("systemctl", "restart", UNITS[0])
    engine = machine.engine
    wait_until(
        lambda: name in engine.docker("network", "ls", "--format={{.Name}}").split(), 30, machine.log()
    )
    output = engine.docker(
        "run", "--rm", f"--network={name}", "busybox", "ping", "-c1", "-w5", "192.168.77.1"
    )
    assert "1 packets received" in output


def test_network_of_the_service_needs_the_engines_api(machine: Systemd) -> None:
    """Without the drop-in the unit does not start, and the log says which file is missing."""
    default = machine.path("/etc/default/macvlan-twisted")
    default.write_text("MACVLAN_TWISTED_CREATE_NETWORK=lan\n", encoding="ascii")
    assert machine.attempt("systemctl", "restart", UNITS[0]).status != 0
    (line,) = {line for line in machine.log().splitlines() if line.startswith("macvlan-twisted: ")}
    assert "--create-network lan needs Docker's API" in line
    assert "engine-api.conf" in line
    default.unlink()
    machine.start()
