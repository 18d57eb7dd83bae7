"""A swarm of two nodes, whose tasks have addresses of ours on a network of Docker's own macvlan driver."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.integration.containers import RANGE, address
from tests.lab.commands import wait_until
from tests.lab.docker_host import DockerHost

SERVICE = ("--detach", "--network=lan", "--stop-grace-period=1s", "--no-resolve-image")
PATIENCE = 30
"""Seconds for what an engine does in its own time."""
Hosts = tuple[DockerHost, DockerHost]


@pytest.fixture
def swarm(two_hosts: Hosts) -> Iterator[Hosts]:
    """Give a manager and a worker, with a network ``lan`` that each node makes when its first task comes."""
    manager, worker = two_hosts
    with in_swarm(manager, worker):
        for host in two_hosts:
            config = ("--config-only", "--ipam-driver=macvlan-twisted", *RANGE)
            host.engine.docker("network", "create", *config, "cfg")
        swarms = ("--scope=swarm", "--config-from=cfg")
        manager.engine.docker("network", "create", "--driver=macvlan", *swarms, "lan")
        yield manager, worker
        manager.engine.docker("network", "rm", "lan", check=False)


@contextmanager
def in_swarm(manager: DockerHost, worker: DockerHost) -> Iterator[None]:
    """Make a swarm, and end it together with what engines make for one."""
    hosts = (manager, worker)
    first, second = (host.lan.addresses.of(host.place)[0].partition("/")[0] for host in hosts)
    try:
        manager.engine.docker("swarm", "init", f"--advertise-addr={first}")
        token = manager.engine.docker("swarm", "join-token", "--quiet", "worker").strip()
        join = ("swarm", "join", f"--token={token}", f"--advertise-addr={second}")
        worker.engine.docker(*join, f"{first}:2377")
        yield
    finally:
        for host in (worker, manager):
            host.engine.docker("swarm", "leave", "--force", check=False)


def tasks(host: DockerHost) -> list[str]:
    """Return the names of the host's running containers."""
    return host.engine.docker("ps", "--format={{.Names}}").split()


def wait_for_task(host: DockerHost) -> str:
    """Wait until a task runs on the host; return its address."""
    wait_until(lambda: len(tasks(host)) == 1, PATIENCE, f"a task on {host.place}", pause=0.5)
    return address(host.engine, tasks(host)[0])


def wait_for_line(host: DockerHost, words: str) -> None:
    """Wait until the plugin has logged some words."""
    wait_until(lambda: words in host.plugin.log(), PATIENCE, f"{words!r} in the log", pause=0.5)


@pytest.mark.one_engine
@pytest.mark.short_grace_periods
@pytest.mark.plugin_arguments("--debug")
def test_killed_engines_pool_is_released_when_its_successor_is_in_use(swarm: Hosts) -> None:
    """The fixture insists that nothing is left once the last task of each node is gone."""
    manager, worker = swarm
    manager.engine.docker(
        "service", "create", "--name=web", "--mode=global", *SERVICE, "busybox", "sleep", "3600"
    )
    before = [wait_for_task(host) for host in swarm]
    assert len({*before}) == 2
    worker.engine.kill()
    worker.engine.start()
    wait_until(
        lambda: worker.plugin.log().count("IpamDriver.RequestPool: ") == 2,
        PATIENCE,
        "another pool",
        pause=0.5,
    )
    after = wait_for_task(worker)
    assert after not in before
    wait_for_line(worker, "released, because it has no network in the engine")
    assert worker.engine.docker("exec", tasks(worker)[0], "ping", "-c1", "-w9", before[0])
    manager.engine.docker("service", "rm", "web")
    for host in swarm:
        wait_for_line(host, "IpamDriver.ReleasePool: ")
