"""
The reconciler at any moment, beside any engine, after any sequence of calls: it never removes what is in use, and in the
end removes the rest.

The model knows what neither we nor the engine know: which containers live, and where their links are.
"""

from __future__ import annotations

from typing import Any

from attrs import define
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from macvlan_twisted.addresses import parse_address
from macvlan_twisted.driver import requests
from macvlan_twisted.engine.interfaces import EngineError, EngineUnavailable
from macvlan_twisted.ipam.requests import ReleaseAddress
from macvlan_twisted.link_names import endpoint_link_name
from macvlan_twisted.state.interfaces import RecordKind

from .engines import Engine
from .helpers import NETWORK, OTHER_NETWORK, PluginHarness
from .reconciler_cases import listed, make_network, open_pool, request_address

STEP = 5
"""Seconds that pass at once: the time between two checks of a round."""
TROUBLES = {
    "absent": EngineUnavailable("no such file"),
    "refusing": EngineError("forbidden by a proxy"),
    "busy": EngineUnavailable("it took too long"),
}


@define
class Container:
    endpoint_id: str
    address: str
    network_id: str = NETWORK
    is_starting: bool = False
    """It has an endpoint whose link is still in the namespace of the host."""


class ReconcilerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.engine = Engine()
        self.plugin = PluginHarness(engine=self.engine)
        self.living: dict[str, Container] = {}
        self.foreign: set[str] = set()
        """Addresses in a network of another driver, which has a pool of ours on the same subnet."""
        self.numbers = iter(range(2, 250))
        self.foreign_pool = open_pool(self.plugin)
        self.pool_id = open_pool(self.plugin)
        make_network(self.plugin)
        self.engine.has = {NETWORK: listed(), OTHER_NETWORK: listed(OTHER_NETWORK, driver="bridge")}
        self.go_on()

    def go_on(self) -> None:
        plugin = self.plugin
        self.reconciler = plugin.parts.reconciler
        plugin.parts.reconcile_loop.start()

    def next_address(self, pool_id: str) -> str | None:
        number = next(self.numbers, None)
        if number is None:
            return None
        address = f"192.168.1.{number}"
        request_address(self.plugin, pool_id, address)
        return address

    # What the engine does.

    @rule(slowly=st.booleans())
    def start(self, slowly: bool) -> None:
        address = self.next_address(self.pool_id)
        if address is None:
            return
        endpoint_id = f"{address.rsplit('.')[-1]:0>64}"
        self.plugin.create_endpoint(endpoint_id, address=f"{address}/24")
        self.plugin.wait(self.plugin.joining.join(requests.Join(NETWORK, endpoint_id)))
        self.engine.listed[endpoint_id] = "web"
        self.living[endpoint_id] = Container(endpoint_id, address, is_starting=True)
        if not slowly:
            self.move(self.living[endpoint_id])

    def move(self, container: Container) -> None:
        self.plugin.kernel.move_away(endpoint_link_name(container.endpoint_id), up=True)
        container.is_starting = False

    @rule()
    def begin_to_start(self) -> None:
        """The engine asks for an address, and is killed."""
        self.next_address(self.pool_id)

    @rule()
    def start_on_another_drivers_network(self) -> None:
        address = self.next_address(self.foreign_pool)
        if address is not None:
            self.foreign.add(address)

    @precondition(lambda self: self.living)
    @rule(data=st.data(), how=st.sampled_from(("all", "no address", "nothing", "with its sandbox")))
    def stop(self, data: st.DataObject, how: str) -> None:
        """The calls about its removal arrive all, in part, or not at all."""
        container = data.draw(st.sampled_from(list(self.living.values())))
        if container.is_starting:
            self.move(container)
        del self.living[container.endpoint_id]
        del self.engine.listed[container.endpoint_id]
        name = endpoint_link_name(container.endpoint_id)
        if how == "with its sandbox":
            self.plugin.kernel.destroy_away(name)
            return
        self.plugin.kernel.move_back(self.plugin.kernel.away(name))
        if how in ("all", "no address"):
            self.plugin.delete_endpoint(container.endpoint_id)
        if how == "all":
            release = ReleaseAddress(self.pool_id, parse_address(container.address))
            self.plugin.wait(self.plugin.addresses.release_address(release))

    @rule(trouble=st.sampled_from((None, *TROUBLES)))
    def come_or_go(self, trouble: str | None) -> None:
        self.engine.trouble = None if trouble is None else TROUBLES[trouble]

    @rule(engine_id=st.sampled_from(("a" * 64, "b" * 64)))
    def be_replaced(self, engine_id: str) -> None:
        """Another engine, with none of our networks, answers where ours did; or ours is back."""
        is_ours = engine_id == "a" * 64
        self.engine.id = engine_id
        ours = {NETWORK: listed(), OTHER_NETWORK: listed(OTHER_NETWORK, driver="bridge")}
        self.engine.has = ours if is_ours else {"f" * 64: listed("f" * 64, "10.0.0.0/8", driver="bridge")}

    # What users and time do.

    @precondition(lambda self: any(not each.is_starting for each in self.living.values()))
    @rule(data=st.data(), facts=st.sampled_from(({"up": False}, {"alias": ""}, {"up": False, "alias": ""})))
    def change_link(self, data: st.DataObject, facts: dict[str, Any]) -> None:
        running = [each for each in self.living.values() if not each.is_starting]
        container = data.draw(st.sampled_from(running))
        self.plugin.kernel.change_away(endpoint_link_name(container.endpoint_id), **facts)

    @rule(can=st.booleans())
    def show_namespaces(self, can: bool) -> None:
        self.plugin.steps.refuse = {} if can else {"links_elsewhere": 95}

    @rule(seconds=st.sampled_from((5, 60, 140, 400, 600)))
    def wait(self, seconds: int) -> None:
        for _ in range(seconds // STEP):
            self.plugin.clock.advance(STEP)
            for each in self.living.values():
                if each.is_starting and self.is_due():
                    self.move(each)

    def is_due(self) -> bool:
        """An engine takes no longer than a minute to move a link into a container."""
        return int(self.plugin.clock.seconds()) % 60 == 0

    @rule()
    def restart(self) -> None:
        self.plugin = self.plugin.next_life()
        self.go_on()

    @invariant()
    def what_is_in_use_is_kept(self) -> None:
        plugin = self.plugin
        for endpoint_id, container in self.living.items():
            assert endpoint_id in plugin.registry.endpoints, f"{container} has lost its endpoint"
            assert endpoint_id in plugin.records.rows[RecordKind.ENDPOINT]
            if container.is_starting:
                assert plugin.kernel.exists(endpoint_link_name(endpoint_id)), f"{container} has lost its link"
        claimed = {(each.pool_id, str(each.address)) for each in plugin.store.allocated.values()}
        assert {(self.pool_id, each.address) for each in self.living.values()} <= claimed
        assert {(self.foreign_pool, each) for each in self.foreign} <= claimed
        assert NETWORK in plugin.registry.networks
        assert {self.pool_id, self.foreign_pool} <= set(plugin.store.open)

    def teardown(self) -> None:
        """In the end the engine answers, and all that is stale goes."""
        if not hasattr(self, "reconciler"):
            return
        self.be_replaced("a" * 64)
        self.engine.trouble = None
        self.plugin.steps.refuse = {}
        for _ in range(3):
            self.wait(400)
        self.what_is_in_use_is_kept()
        assert set(self.plugin.registry.endpoints) == set(self.living)
        for name in self.plugin.link_names() - {"lo", "eth0", "eth1"}:
            assert not name.startswith("mvt"), name
        is_known = any(each.network_id == NETWORK for each in self.plugin.pools.open_pools)
        if is_known:
            claimed = {str(each.address) for each in self.plugin.store.allocated.values()}
            assert claimed == {each.address for each in self.living.values()} | self.foreign


ReconcilerModelTests = ReconcilerMachine.TestCase
ReconcilerModelTests.settings = settings(max_examples=40, stateful_step_count=30)
