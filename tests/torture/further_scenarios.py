"""
Further scenarios for kills: with an engine API, a DHCP server that denies its leases, lost or foreign state, and
administrator's commands that are repeated.
"""

import errno
import grp
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from signal import SIGKILL

from tests.lab.commands import attempt, run
from tests.torture.api import Api
from tests.torture.docker import FORGET, Container, Docker, EngineView, NetworkSpec
from tests.torture.scenarios import DHCP, HOST_ACCESS, MAC, QUIET, Scenario, whole_life

GROUP = grp.getgrgid(0).gr_name
FIRST, SECOND = "192.168.77.100,192.168.77.199", "192.168.77.220,192.168.77.239"
"""The DHCP server's range, and its range after it was reconfigured."""
PROMOTED = Path("/proc/sys/net/ipv4/conf/all/promote_secondaries")
LEFT = ("0123456789ab", "123456789abc")
TAKEN = "192.168.77.77"
KNOWN, INHABITED = "23456789abcd", "3456789abcde"


def with_api(docker: Docker) -> Api:
    """Give the program an engine API to ask."""
    world = docker.world
    api, path = Api(docker), world.directory / "docker.sock"
    world.at_end.enter_context(api.listening(path))
    world.docker_host = f"unix://{path}"
    return api


# The network of --create-network.


def prepare_network(docker: Docker) -> None:
    """Create the network that the program asks for, at each start."""
    docker.when_up = partial(with_api(docker).create_until, "auto")


def own_network(docker: Docker, spec: NetworkSpec) -> None:
    """A container lives on the network that the program created; both are removed."""
    (net,) = docker.view.networks.values()
    docker.stop(docker.start(net, name="web"))
    docker.remove_network(net)


# A socket for a group, on the place of another state.


def group_refused(docker: Docker) -> None:
    """The first process cannot change its socket's group, and does not start."""
    refusal = {"step": "listener.socket.give", "occurrence": 1, "done": False, "errno": errno.EPERM}
    killed = docker.rules_of_life
    docker.rules_of_life = lambda life: (*killed(life), *((refusal,) if life == 1 else ()))


def begun_anew(docker: Docker, spec: NetworkSpec) -> None:
    """An empty state directory is removed; a new state begins there."""
    docker.world.stop()
    shutil.rmtree(docker.world.state)
    docker.up()
    whole_life(docker, spec)


# Leases that the server takes back.


def insist(docker: Docker, range: str) -> None:
    """Make the server lease from another range, and deny its earlier leases."""
    server = docker.world.dhcp
    assert server is not None
    server.stop()
    server.range = range
    server.arguments = ("--dhcp-authoritative", "--dhcp-option=3,192.168.77.2") if range == SECOND else ()
    server.start()


def prepare_moves(docker: Docker) -> None:
    """Restore the server for the next try."""
    docker.world.at_end.callback(insist, docker, FIRST)


def addresses_in_box(docker: Docker, container: Container) -> set[str]:
    """Return a container's IPv4 addresses in its sandbox."""
    box = docker.world.box(container.number)
    link = box.links().get(container.link)
    return {
        address
        for index, address in box.addresses()
        if link is not None and index == link["index"] and ":" not in address
    }


def routers_in_box(docker: Docker, container: Container) -> set[str]:
    """Return the gateways of the default routes in its sandbox."""
    routes = docker.world.box(container.number).routes()
    return {router for _, _, destination, _, router in routes if destination == "default"}


def readdressed(docker: Docker, spec: NetworkSpec) -> None:
    """The LAN has other addresses when the program starts again; the running container is moved to one."""
    world = docker.world
    net = docker.create_network(spec)
    container = docker.start(net, name="web")
    old = container.addresses[0][1] if container.addresses else container.leased.partition("/")[0]
    router = "192.168.77.1" if spec.ipam == "ours" else "192.168.77.2"
    box = world.box(container.number)

    def configure() -> None:
        index = box.netlink.link_lookup(ifname=container.link)[0]
        box.netlink.addr("add", index=index, address=old, prefixlen=24)
        box.netlink.route("add", dst="default", gateway="192.168.77.1", oif=index)

    box.do(configure)
    if spec.ipam == "null":  # the old router's route does not go with the old address
        box.do(partial(PROMOTED.write_text, "1"))
        world.at_end.callback(box.do, partial(PROMOTED.write_text, "0"))
    world.kill()
    insist(docker, SECOND)
    docker.up()
    deadline = time.monotonic() + 15

    def is_moved() -> bool:
        there = addresses_in_box(docker, container)
        are_new = bool(there) and all(each.startswith("192.168.77.2") for each in there)
        has_router = routers_in_box(docker, container) == {router}
        return are_new and has_router and "address changed from" in world.log()

    while not is_moved():
        if world.wait(0) is not None:
            docker.up()
        if time.monotonic() > deadline:
            there = (addresses_in_box(docker, container), routers_in_box(docker, container))
            docker.wrong.append(f"the container has addresses and routers {there}")
            break
        docker.wait(0.02)
    docker.stop(container)
    docker.remove_network(net)


# Routes of the host.


def other_source(docker: Docker, spec: NetworkSpec) -> None:
    """While the program is down, somebody changes the source address of the host's route to a container."""
    world = docker.world
    net = docker.create_network(spec)
    container = docker.start(net, name="web")
    world.kill()
    (route,) = run(
        *world.lan.enter("host"), "ip", "-4", "route", "show", f"{container.addresses[0][1]}/32"
    ).splitlines()
    words = route.split()
    words[words.index("src") + 1] = "192.168.77.10"
    run(*world.lan.enter("host"), "ip", "-4", "route", "replace", *words)
    docker.up()
    docker.wait(0.05)
    docker.stop(container)
    docker.remove_network(net)


def handed_on(docker: Docker, spec: NetworkSpec) -> None:
    """
    An engine forgets a container, whose sandbox stays mounted, and gives its address back: a container of another
    network gets the address, and the host speaks to that one from the address that it has there.
    """
    net = docker.create_network(spec)
    one = docker.start(net, address=TAKEN)
    docker.forget(one)
    docker.release_address(net.pools[0], TAKEN)
    if docker.cut:
        return  # perhaps it was not given back, and nobody tries again
    other = docker.create_network(replace(spec, options={**spec.options, "host_address": "192.168.77.51"}))
    docker.stop(docker.start(other, address=TAKEN, mac=MAC))
    docker.remove_network(other)
    docker.remove_network(net)


# State that was lost.


def prepare_recovery(docker: Docker) -> None:
    """An engine that can be asked, and goes on to use the old PoolIDs."""
    with_api(docker)
    docker.is_rebuilt = True


def recovered(docker: Docker, spec: NetworkSpec, damage: Callable[[Path], object]) -> None:
    """State is damaged while containers run; it is rebuilt, and the containers end."""
    world = docker.world
    net = docker.create_network(spec)
    one = docker.start(net, name="one")
    docker.start(net, name="two")
    world.stop()
    damage(world.state)
    arguments = world.arguments
    world.arguments = (*arguments, "--recover")
    docker.up()
    world.arguments = arguments
    docker.stop(one)
    docker.stop(docker.start(net, name="three"))


def overwrite(directory: Path) -> None:
    """Overwrite the database."""
    (directory / "state.sqlite").write_bytes(b"[Unit]\n" * 999)


# Commands.


def leaving(docker: Docker, spec: NetworkSpec) -> None:
    """The program is killed and purged; the engine's networks are removed without it."""
    world = docker.world
    net = docker.create_network(spec)
    docker.stop(docker.start(net, name="web"))
    world.kill()
    docker.view = EngineView()
    if _killed(docker, "purge", "--yes") and docker.reaction == FORGET:
        docker.view.excused |= {("network", net.id), *(("pool", each) for each in net.pools)}
        docker.up()  # changed his mind, and changes it again
        world.kill()
        _killed(docker, "purge", "--yes")
        docker.view = EngineView()
    left = [each for each in (world.state, world.directory / "run") if each.exists()]
    left += list(world.socket.parent.iterdir())
    ours = [
        name
        for name, link in world.host.links().items()
        if (link.get_attr("IFLA_IFALIAS") or "").startswith("macvlan-twisted/")
    ]
    docker.wrong += [f"purge left {each} behind" for each in (*left, *ours)]


def _killed(docker: Docker, *words: str) -> bool:
    """Run a command, again if it was killed; return whether it was."""
    world = docker.world
    status = world.command(*words, rules=docker.rules_of_life(world.life + 1))
    was_killed = status == -SIGKILL
    if was_killed and not (words[0] == "purge" and docker.reaction == FORGET):
        status = world.command(*words)
    if status not in (0, -SIGKILL):
        docker.wrong.append(
            f"macvlan-twisted {' '.join(words)} ended with status {status}: {world.log()[-300:]}"
        )
    return was_killed


def sandboxes_left(docker: Docker, spec: NetworkSpec) -> None:
    """Sandboxes are mounted where an engine has them: two are unknown to it, one of them mounted twice."""
    world = docker.world
    api = with_api(docker)
    net = docker.create_network(spec)
    container = docker.start(net, name="web")
    directory = world.directory / "netns"
    directory.mkdir()
    world.at_end.callback(_unmount, directory)
    api.sandbox_keys[container.id] = str(directory / KNOWN)
    for name in LEFT:
        (directory / name).touch()
        run("unshare", f"--net={directory / name}", "true")
    run("mount", "--bind", str(directory / LEFT[1]), str(directory / LEFT[1]))
    for name, number in ((KNOWN, container.number), (INHABITED, container.number + 1)):
        (directory / name).touch()
        run("mount", "--bind", world.box_path(number), str(directory / name))
    _killed(docker, "sandboxes", "--remove", f"--netns-dir={directory}")
    there = {each.name for each in directory.iterdir()}
    if there != {KNOWN, INHABITED}:
        docker.wrong.append(f"sandboxes {sorted(there)} are there")
    for each in (KNOWN, INHABITED):
        if (directory / each).stat().st_dev != os.stat("/proc/self/ns/net").st_dev:
            docker.wrong.append(f"sandbox {each}, which somebody has, is not mounted any more")
    docker.stop(container)
    docker.remove_network(net)


def _unmount(directory: Path) -> None:
    for path in directory.iterdir():
        while attempt("umount", "--lazy", str(path)).status == 0:
            pass


READDRESS = NetworkSpec(
    options={
        "parent": "eth1",
        "dhcp_readdress": "true",
        "host_access": "true",
        "host_address": "192.168.77.95",
    },
    ipam_options={"dhcp": "true"},
    pools=(("192.168.77.0/24", "", "192.168.77.1"),),
)

HANDED_ON = NetworkSpec(options={"parent": "eth1", "host_access": "true", "host_address": "192.168.77.50"})

FURTHER_SCENARIOS = (
    Scenario(
        "own network", NetworkSpec(), own_network, (*QUIET, "--create-network=auto"), prepare=prepare_network
    ),
    Scenario(
        "group refused", NetworkSpec(), whole_life, (*QUIET, f"--socket-group={GROUP}"), prepare=group_refused
    ),
    Scenario("begun anew", NetworkSpec(), begun_anew, (*QUIET, f"--socket-group={GROUP}"), life=2),
    Scenario("readdress", READDRESS, readdressed, DHCP, fresh_server=True, life=2, prepare=prepare_moves),
    Scenario(
        "readdress, router",
        NetworkSpec(
            ipam="null",
            pools=(("0.0.0.0/0", "", ""),),
            options={"parent": "eth1", "dhcp": "true", "dhcp_readdress": "true"},
        ),
        readdressed,
        DHCP,
        fresh_server=True,
        life=2,
        prepare=prepare_moves,
    ),
    Scenario("other source", HOST_ACCESS, other_source, life=2),
    Scenario("handed on", HANDED_ON, handed_on),
    Scenario(
        "recover, damaged",
        HOST_ACCESS,
        partial(recovered, damage=overwrite),
        life=2,
        prepare=prepare_recovery,
    ),
    Scenario(
        "recover, gone",
        NetworkSpec(),
        partial(recovered, damage=shutil.rmtree),
        life=2,
        prepare=prepare_recovery,
    ),
    Scenario("purge", HOST_ACCESS, leaving, life=2),
    Scenario("sandboxes", NetworkSpec(), sandboxes_left, life=2),
)
