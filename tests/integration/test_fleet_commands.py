"""``macvlan-twisted fleet`` on one of two docker hosts on a LAN, with a real etcd."""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from attrs import define

from tests.integration.conftest import need
from tests.integration.raw_hosts import GATEWAY, RawHost
from tests.lab.commands import Finished, attempt, run, wait_until
from tests.lab.etcd import Cluster
from tests.lab.lan import Lan
from tests.lab.plugin import CHECKOUT, DEFAULTS, Plugin
from tests.lab.requirements import missing_for_etcd

PART = "192.168.77.128/25"
FIRST, SECOND = "host", "host2"
SILENCE = 25
"""Seconds after which a host that was killed counts as silent: its lease is 15."""


@define
class Fleet:
    lan: Lan
    cluster: Cluster
    first: RawHost
    second: RawHost

    def options(self, place: str) -> tuple[str, ...]:
        """Return the options that make a service on a place a member of the fleet."""
        members = ",".join(url.removeprefix("http://") for url in self.cluster.endpoints)
        return ("--fleet", f"etcd://{members}", "--fleet-host", place)

    def start(self, host: RawHost) -> None:
        """Start a service as a member."""
        host.plugin.start(*self.options(host.plugin.place))

    def command(self, name: str, *words: str, place: str = SECOND) -> Finished:
        """Run one of our commands beside a service, as an administrator does."""
        plugin = (self.first if place == FIRST else self.second).plugin
        state = ("--state-dir", str(plugin.state_dir), "--runtime-dir", str(plugin.directory / "run"))
        program = (
            "env",
            f"PYTHONPATH={CHECKOUT}",
            sys.executable,
            "-P",
            "-m",
            "macvlan_twisted",
            "fleet",
            name,
        )
        more = state if name in {"leave", "import"} else ()
        return attempt(*self.lan.enter(place), *program, *self.options(place), *more, *words, timeout=90)

    def read(self, name: str, *words: str) -> Any:
        """Run a command that prints JSON."""
        done = self.command(name, *words)
        assert done.status == 0, done
        return json.loads(done.stdout)

    def addresses_of(self, place: str) -> dict[str, str]:
        """Return the state of each address that a host has claimed."""
        found = self.read("addresses", "--json", "--host", place)
        return {each["address"]: each["state"] for each in found if "owner" in each}


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """Run etcd on the router, and our service on two hosts, which are in no fleet yet."""
    need(missing_for_etcd())
    with Lan(hosts=2) as lan, Cluster(lan) as cluster, ExitStack() as services:
        first, second = (
            RawHost(services.enter_context(Plugin(lan, place=place, arguments=DEFAULTS)))
            for place in lan.docker_hosts
        )
        yield Fleet(lan, cluster, first, second)
        for host in (first, second):
            assert "Traceback" not in host.plugin.log()


@pytest.fixture
def joined(fleet: Fleet) -> Fleet:
    """Have both hosts join the fleet, each with a network on the LAN."""
    for host in (fleet.first, fleet.second):
        host.plugin.stop()
        fleet.start(host)
        wait_until(lambda: "fleet: connected as host" in host.plugin.log(), 15, "a member of the fleet")  # noqa: B023
        host.open(PART)
    return fleet


def test_reports_show_what_is_in_etcd(joined: Fleet) -> None:
    taken = joined.first.take()
    wait_until(lambda: joined.addresses_of(FIRST).get(taken) == "used", 15, "the address to be used")
    status = joined.command("status")
    assert status.status == 0, status
    assert "hosts: 2 known, 2 alive" in status.stdout
    assert f"this host: {SECOND}, alive" in status.stdout
    assert "attention" not in status.stdout
    assert {each["name"]: each["alive"] for each in joined.read("hosts", "--json")} == {
        FIRST: True,
        SECOND: True,
    }
    stored = joined.cluster.get("/macvlan-twisted/lans/")
    exported = joined.read("export")
    assert {
        f"/macvlan-twisted/lans/default/addresses/{each['address']}" for each in exported["addresses"]
    } == set(stored)
    gateway = next(each for each in exported["addresses"] if each["address"] == GATEWAY)
    assert {each["host"] for each in gateway["holders"]} == {FIRST, SECOND}


def test_a_host_that_never_comes_back_is_forgotten(joined: Fleet) -> None:
    taken, kept = joined.first.take(), joined.first.take()
    alive = joined.command("forget", FIRST, "--yes")
    assert alive.status == 1
    assert f"host {FIRST} is alive" in alive.stderr
    joined.first.plugin.kill()
    wait_until(lambda: "hosts: 2 known, 1 alive" in joined.command("status").stdout, SILENCE, "a silent host")
    refused = joined.second.ask(taken)["Err"]
    assert f"macvlan-twisted fleet forget {FIRST}" in refused

    station = ("address", "add", f"{kept}/24", "dev", "eth1")
    run(*joined.lan.enter("neighbour"), "ip", *station)
    asked = joined.command("forget", FIRST)
    assert asked.status == 1, "nobody was there to agree"
    assert taken in joined.addresses_of(FIRST)
    partly = joined.command("forget", FIRST, "--yes")
    assert partly.status == 1
    assert f"stays: address {kept} of LAN default" in partly.stdout
    assert "answers for it" in partly.stdout
    assert set(joined.addresses_of(FIRST)) == {kept}
    assert joined.second.take(taken) == taken

    run(*joined.lan.enter("neighbour"), "ip", "address", "delete", *station[2:])
    done = joined.command("forget", FIRST, "--yes")
    assert done.status == 0, done
    assert not [key for key in joined.cluster.get("/macvlan-twisted/") if key.endswith(f"/{FIRST}")]
    values = "".join(joined.cluster.get("/macvlan-twisted/lans/").values())
    assert f'"host": "{FIRST}"' not in values


def test_a_host_joins_with_what_it_has_and_leaves(fleet: Fleet) -> None:
    first, second = fleet.first, fleet.second
    for host in (first, second):
        host.open(PART)
    other, common = first.take(), first.take("192.168.77.200")
    second.plugin.stop()
    fleet.start(second)
    assert second.ask(common).get("Address") is None, "the other service answers for it"
    running = fleet.command("import", place=FIRST)
    assert running.status == 1
    assert "another macvlan-twisted is using state directory" in running.stderr

    first.plugin.stop()
    wait_until(
        lambda: second.ask(common).get("Address") is not None, 15, "an address that nobody answers for"
    )
    wait_until(lambda: fleet.addresses_of(SECOND).get(common) == "used", 15, "the address to be used")
    conflict = fleet.command("import", place=FIRST)
    assert conflict.status == 1
    assert f"address {common} of LAN default: conflict (host {SECOND})" in conflict.stdout
    assert fleet.addresses_of(FIRST) == {}
    second.release(common)
    dry = fleet.command("import", "--dry-run", place=FIRST)
    assert dry.status == 0, dry
    assert f"address {other} of LAN default: is free in the fleet" in dry.stdout
    assert fleet.addresses_of(FIRST) == {}
    done = fleet.command("import", place=FIRST)
    assert done.status == 0, done
    assert fleet.addresses_of(FIRST) == {other: "used", common: "used"}

    fleet.start(first)
    wait_until(lambda: "fleet: connected as host" in first.plugin.log(), 15, "a member of the fleet")
    assert "although this host has it" not in first.plugin.log()
    first.plugin.stop()
    refused = fleet.command("leave", place=FIRST)
    assert refused.status == 1
    assert other in refused.stderr
    left = fleet.command("leave", "--force", place=FIRST)
    assert left.status == 0, left
    assert fleet.addresses_of(FIRST) == {}
    assert [each["name"] for each in fleet.read("hosts", "--json")] == [SECOND]
    first.plugin.start()
