"""``macvlan-twisted purge`` and ``sandboxes``, on a docker host with a real engine."""

import os
import signal
import sys

import pytest

from tests.integration.containers import AT_ONCE, OUR_IPAM
from tests.lab.commands import Finished, attempt, wait_until
from tests.lab.docker_host import DockerHost
from tests.lab.plugin import CHECKOUT

pytestmark = pytest.mark.one_engine
NICS = 2
WAN = ("--opt=parent=eth2", "--opt=host_access=true", "--ipam-driver=macvlan-twisted", "--subnet=10.9.0.0/24")
LEFT = "/run/docker/netns/0123456789ab"


def command(host: DockerHost, *words: str) -> Finished:
    """Run our command beside the engine, as an administrator does."""
    program = ("env", f"PYTHONPATH={CHECKOUT}", sys.executable, "-P", "-m", "macvlan_twisted")
    return attempt(
        *host.engine.beside(), *program, *words, "--docker-host", host.engine.docker_host, timeout=90
    )


def purge(host: DockerHost, *words: str) -> Finished:
    """Run ``purge`` for the state of the host's plugin."""
    plugin = host.plugin
    places = ("--state-dir", str(plugin.state_dir), "--plugin-dir", str(plugin.plugins_dir))
    return command(host, "purge", *places, "--runtime-dir", str(plugin.directory / "run"), *words)


def inside(host: DockerHost, *words: str) -> Finished:
    """Run a command of the machine's where the engine mounts its sandboxes."""
    return attempt(*host.engine.beside(), *words, timeout=30)


def test_purge_removes_everything_of_ours_and_nothing_else(docker_host: DockerHost) -> None:
    plugin, engine = docker_host.plugin, docker_host.engine
    docker_host.create("lan", *OUR_IPAM, "--opt=host_access=true")
    docker_host.create("wan", *WAN)
    docker_host.start("box", AT_ONCE)
    refused = purge(docker_host, "--yes")
    assert refused.status == 1
    assert "another macvlan-twisted is using state directory" in refused.stderr

    plugin.stop()
    refused = purge(docker_host, "--yes")
    assert refused.status == 1
    assert "containers are running on networks of the plugin: box" in refused.stderr
    plugin.start()
    engine.docker("rm", "--force", "box")
    plugin.kill()
    stranger = ("link", "add", "link", "eth1", "name", "mvhstranger", "type", "macvlan")
    assert inside(docker_host, "ip", *stranger).status == 0
    before = docker_host.links()
    ours = {name for name, link in before.items() if link.get("ifalias", "").startswith("macvlan-twisted/")}
    assert len(ours) == 2, "two links of the host's own are to be there"

    tried = purge(docker_host, "--dry-run")
    assert tried.status == 0
    assert docker_host.links().keys() == before.keys()
    assert (plugin.state_dir / "state.sqlite").exists()
    asked = purge(docker_host)
    assert asked.status == 1, "nobody was there to agree"
    assert docker_host.links().keys() == before.keys()

    done = purge(docker_host, "--yes")
    assert done.status == 0, done
    for name in ours:
        assert f"would be removed: link {name}" in tried.stdout
        assert f"removed: link {name}" in done.stdout
    assert docker_host.links().keys() == before.keys() - ours, (
        "something foreign went, or something of ours stayed"
    )
    assert not plugin.state_dir.exists()
    assert not plugin.socket.exists()
    assert not plugin.socket.with_name(plugin.socket.name + ".lock").exists()
    assert not (plugin.directory / "run").exists()
    assert "the engine still has network lan" in done.stdout
    assert "there is nothing of ours here" in purge(docker_host, "--yes").stdout
    assert inside(docker_host, "ip", "link", "delete", "mvhstranger").status == 0
    plugin.start()  # the fixture has the networks removed


def test_purge_finds_links_without_state(docker_host: DockerHost) -> None:
    plugin = docker_host.plugin
    docker_host.create("wan", *WAN)
    plugin.kill()
    for path in (*plugin.state_dir.iterdir(), *(plugin.directory / "run").iterdir()):
        path.unlink()
    few = purge(docker_host, "--yes")
    assert "links of other instances stay: mvh" in few.stdout
    assert [name for name in docker_host.links() if name.startswith("mvh")]
    done = purge(docker_host, "--yes", "--every-instance")
    assert done.status == 0, done
    assert [name for name in docker_host.links() if name.startswith("mv")] == []
    plugin.start("--recover")


def test_sandboxes_in_use_stay_and_others_go_on_request(docker_host: DockerHost) -> None:
    engine = docker_host.engine
    docker_host.create("lan", *OUR_IPAM)
    docker_host.start("box", AT_ONCE)
    key = engine.docker("inspect", "--format={{.NetworkSettings.SandboxKey}}", "box").strip()
    name = os.path.basename(key)
    assert inside(docker_host, "touch", LEFT).status == 0
    assert inside(docker_host, "unshare", f"--net={LEFT}", "true").status == 0
    alias = "macvlan-twisted/0123abcd/endpoint/x"
    for words in (("add", "mvtlost", "type", "veth"), ("set", "mvtlost", "alias", alias)):
        assert inside(docker_host, "nsenter", f"--net={LEFT}", "ip", "link", *words).status == 0

    output = command(docker_host, "sandboxes")
    assert output.status == 0, output
    lines = {os.path.basename(line.partition(":")[0]): line for line in output.stdout.splitlines()}
    assert "in use by process" in lines[name]
    assert "the engine knows it; links of ours inside: eth0" in lines[name]
    assert "no process lives in it; the engine does not know it" in lines["0123456789ab"]
    assert "links of ours inside: mvtlost" in lines["0123456789ab"]
    assert inside(docker_host, "nsenter", f"--net={LEFT}", "true").status == 0, "removed without a request"

    done = command(docker_host, "sandboxes", "--remove")
    assert done.status == 0, done
    assert "removed: /var/run/docker/netns/0123456789ab" in done.stdout
    assert inside(docker_host, "ls", LEFT).status != 0
    assert inside(docker_host, "nsenter", f"--net=/run/docker/netns/{name}", "true").status == 0
    docker_host.engine.docker("restart", "box")


def test_sandbox_removal_needs_the_engine_or_engine_is_gone(docker_host: DockerHost) -> None:
    """As the ancestor's users had it: the engine was killed, and its containers with it."""
    engine = docker_host.engine
    docker_host.create("lan", *OUR_IPAM)
    docker_host.start("box", AT_ONCE)
    pid = int(engine.docker("inspect", "--format={{.State.Pid}}", "box"))
    name = os.path.basename(
        engine.docker("inspect", "--format={{.NetworkSettings.SandboxKey}}", "box").strip()
    )
    outer = next(
        int(each)
        for each in os.listdir("/proc")
        if each.isdigit() and _inner_pid(int(each)) == pid and "sleep" in _command(int(each))
    )
    engine.kill()
    refused = command(docker_host, "sandboxes", "--remove")
    assert refused.status == 1
    assert "does not list its sandboxes" in refused.stderr
    os.kill(outer, signal.SIGKILL)
    # A process that ends loses its command line before its network namespace.
    ended = "no process lives in it; whether an engine knows it is open"
    wait_until(
        lambda: ended in command(docker_host, "sandboxes").stdout, 20, "the end of the container's process"
    )
    assert command(docker_host, "sandboxes", "--remove").status == 1
    done = command(docker_host, "sandboxes", "--remove", "--engine-is-gone")
    assert done.status == 0, done
    assert f"removed: /var/run/docker/netns/{name}" in done.stdout
    engine.start()
    engine.docker("start", "box")


def _inner_pid(pid: int) -> int:
    """The process id that a process has in its own namespace of those; 0 if it has ended."""
    try:
        with open(f"/proc/{pid}/status") as file:
            line = next(each for each in file if each.startswith("NSpid:"))
        numbers = line.split()[1:]
        return int(numbers[-2] if len(numbers) > 1 else numbers[-1])
    except (OSError, StopIteration):
        return 0


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read()
    except OSError:
        return ""
