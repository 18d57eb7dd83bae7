"""bin/release-the-whales, as its user runs it, against a real engine: many containers, and only those removed."""

import os
import sys
from pathlib import Path

import pytest

from tests.lab.commands import Finished, attempt
from tests.lab.docker_host import DockerHost
from tests.lab.plugin import CHECKOUT
from tests.lab.roots import PATH

NETWORK = ("--ipam-driver=macvlan-twisted", "--subnet=192.168.77.0/24", "--ip-range=192.168.77.128/25")


def whales(host: DockerHost, *words: str) -> Finished:
    """Run the program with the machine's own docker client."""
    return attempt(
        *(str(CHECKOUT / "bin" / "release-the-whales"), *words, f"--docker-host=unix://{host.engine.socket}"),
        timeout=240,
        env={
            "PATH": f"{PATH}:{Path(sys.executable).parent}",
            "HOME": os.environ.get("HOME", "/root"),
            "LANG": "C.UTF-8",
        },
    )


def test_clean_removes_the_whales_only(docker_host: DockerHost) -> None:
    docker_host.create("lan", *NETWORK, "--gateway=192.168.77.1")
    bystander = docker_host.start("bystander")
    released = whales(docker_host, "20")
    assert released.status == 0, released
    assert "[20/20]" in released.stdout
    assert "20 whales swim; 0 failed" in released.stdout
    running = docker_host.engine.docker("ps", "--quiet", "--filter=label=macvlan-twisted.whale").split()
    assert len(running) == 20
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    addresses = docker_host.engine.docker("inspect", f"--format={form}", *running).split()
    assert len(set(addresses)) == 20
    assert all(bystander.ping(address) for address in addresses)

    cleaned = whales(docker_host, "clean")
    assert cleaned.status == 0, cleaned
    assert "20 whales removed; 0 failed" in cleaned.stdout
    assert docker_host.engine.docker("ps", "--all", "--format={{.Names}}").split() == ["bystander"]
    assert docker_host.networks() >= {"lan"}
    assert whales(docker_host, "clean").stdout == "no whales there\n"
    bystander.remove()
    docker_host.engine.docker("network", "rm", "lan")
    docker_host.plugin.stop()
    assert docker_host.remains() == []


@pytest.mark.one_engine
def test_wrong_use_is_refused_with_the_remedy(docker_host: DockerHost) -> None:
    assert "macvlan-twisted has no network; name one with --network" in whales(docker_host, "1").stderr
    for network in ("east", "west"):
        docker_host.create(
            network, "--subnet=192.168.77.0/24", "--ipam-driver=macvlan-twisted", "--gateway=192.168.77.1"
        )
    assert "are: east, west; name one with --network" in whales(docker_host, "1").stderr
    assert "there is no network south" in whales(docker_host, "1", "--network=south").stderr
    assert "neither a number of whales nor clean" in whales(docker_host, "none").stderr


@pytest.mark.one_engine
def test_whales_that_cannot_start_leave_nothing(docker_host: DockerHost) -> None:
    docker_host.create("lan", "--subnet=192.168.77.0/24", *NETWORK[:1], "--ip-range=192.168.77.128/30")
    released = whales(docker_host, "6", "--at-once=3")
    assert released.status == 1
    assert "failed" in released.stdout
    assert "192.168.77.128/30" in released.stderr  # the addresses are exhausted, says the plugin
    made = docker_host.engine.docker("ps", "--all", "--quiet").split()
    assert 1 <= len(made) < 6
    assert f"{len(made)} whales swim; {6 - len(made)} failed" in released.stdout
    assert whales(docker_host, "clean").status == 0


@pytest.mark.one_engine
def test_missing_image_is_made_on_request(docker_host: DockerHost) -> None:
    docker_host.create("lan", *NETWORK, "--gateway=192.168.77.1")
    docker_host.engine.docker("image", "rm", "busybox")
    try:
        refused = whales(docker_host, "1")
        assert refused.status == 1
        assert "there is no image busybox, and no registry gives it" in refused.stderr
        assert "--make-image" in refused.stderr
        made = whales(docker_host, "1", "--make-image")
        assert made.status == 0, made
        assert whales(docker_host, "clean").status == 0
    finally:
        if not docker_host.engine.docker("image", "ls", "--quiet", "busybox"):
            docker_host.engine.load_busybox()
