"""The benchmark still works: a few lives, a few addresses, and the state that it fills."""

import pytest

from tests.benchmark import breakdown
from tests.benchmark.addresses import POOLS, calls, filled
from tests.benchmark.engine import BUILTIN
from tests.benchmark.part import Measurement
from tests.benchmark.protocol import QUIET, create_network, floor, lives, lives_a_second
from tests.benchmark.startup import Stock, stopped
from tests.lab.lan import Lan
from tests.lab.plugin import Plugin


def test_lives_are_measured_beside_the_kernel(lan: Lan) -> None:
    with Plugin(lan, arguments=QUIET) as plugin:
        create_network(plugin.socket)
        timing = lives(plugin.socket, 2, 0.2)
    assert floor(lan, 0.2) > 0
    assert lives_a_second(timing) > 0
    assert len(timing.latencies) == 5
    assert len({len(each) for each in timing.latencies.values()}) == 1, "a life was not finished"
    assert 0 < timing.client < 1


@pytest.mark.parametrize("family", POOLS)
def test_filled_addresses_are_taken(lan: Lan, family: str) -> None:
    with filled(lan, POOLS[family], 50) as (plugin, pool_id):
        plugin.start()
        timing = calls(plugin.socket, pool_id, 2, 0.2)
        assert timing.calls > 0
        answer = plugin.call("IpamDriver.RequestAddress", {"PoolID": pool_id, "Address": "", "Options": {}})
        others = POOLS[family].partition("/")[0].rstrip(".0").rstrip(":")
        assert answer["Address"].startswith(others)
        taken = f"{answer['Address'].partition('/')[0].rpartition('.' if family == '/8' else ':')[0]}"
        refused = plugin.call(
            "IpamDriver.RequestAddress",
            {"PoolID": pool_id, "Address": f"{taken}{'.' if family == '/8' else ':'}5", "Options": {}},
        )
    assert "in use by a container" in refused["Err"]


@pytest.mark.parametrize("where", ["on the host", "in containers"])
def test_service_starts_with_endpoints_and_their_links(lan: Lan, where: str) -> None:
    with stopped(lan, Stock(20, where, 1, 1)) as plugin:
        plugin.start()
        assert "(networks: 1, endpoints: 20)" in plugin.log()
        assert "removed" not in plugin.log()
        links = [link for name, link in lan.links("host").items() if name.startswith("mvt")]
        assert len(links) == (20 if where == "on the host" else 0)


@pytest.mark.one_engine
def test_breakdown_of_a_connect_adds_up(engine_version: str) -> None:
    measurement = Measurement("breakdown", True, 0.5, engine_version, print)
    if missing := breakdown.PART.missing(measurement):
        pytest.skip(missing)
    breakdown.run(measurement)
    tables = {table.name: table for table in measurement.tables}
    for name in ("connect", "disconnect", "start"):
        *pieces, total = tables[name].rows
        for column, side in enumerate(breakdown.SIDES, start=1):
            values = {str(row[0]): float(row[column]) for row in pieces}
            assert sum(values.values()) == pytest.approx(float(total[column]))
            assert values[breakdown.NETLINK] > 0
            assert (values["SQLite commit"] > 0) == (side is not BUILTIN)
    assert set(breakdown.CALLS) <= set(tables["calls"].columns)
