"""Link events of the kernel: links appear, go up and down, are renamed, moved and deleted."""

from collections.abc import Iterator
from contextlib import contextmanager

from twisted.internet.defer import Deferred

from macvlan_twisted.netlink.events import LinkEvent, LinkEvents
from tests.integration.on_reactor import on_reactor
from tests.integration.packet_sockets import within
from tests.lab.lan import Lan


@contextmanager
def events_in(lan: Lan) -> Iterator[LinkEvents]:
    """Subscribe to events of the host's links."""
    from twisted.internet import reactor

    events = LinkEvents(reactor)
    within(lan, "host", events.open)
    try:
        yield events
    finally:
        events.close()


async def heard(events: LinkEvents, lan: Lan, wanted: LinkEvent, *command: str) -> list[LinkEvent]:
    """Run a command on the host, and return all events up to `wanted`.

    :raises TimeoutError: the event did not come within 60 s.
    """
    from twisted.internet import reactor

    all_news: list[LinkEvent] = []
    done: Deferred[None] = Deferred()

    def hear(news: LinkEvent) -> None:
        all_news.append(news)
        if news == wanted and not done.called:
            done.callback(None)

    stop = events.listen(hear)
    try:
        lan.run_in("host", *command)
        done.addTimeout(60, reactor)
        await done
    finally:
        stop()
    return all_news


@on_reactor
async def test_link_events_cover_a_links_whole_life(lan: Lan) -> None:
    link = ("ip", "link", "set", "mine")
    with events_in(lan) as events:
        add = ("ip", "link", "add", "mine", "link", "eth1", "type", "macvlan", "mode", "bridge")
        await heard(events, lan, LinkEvent("mine"), *add)
        await heard(events, lan, LinkEvent("mine", up=True), *link, "up")
        await heard(events, lan, LinkEvent("mine", up=False), "ip", "link", "set", "eth1", "down")
        await heard(events, lan, LinkEvent("mine", up=True), "ip", "link", "set", "eth1", "up")
        await heard(events, lan, LinkEvent("mine", up=False), *link, "down")
        all_news = await heard(events, lan, LinkEvent("other"), *link, "name", "other")
        assert LinkEvent("mine", there=False) in all_news
        delete = ("ip", "link", "delete", "other")
        assert LinkEvent("mine", there=False) not in await heard(
            events, lan, LinkEvent("other", there=False), *delete
        )


@on_reactor
async def test_events_name_links_that_existed_before(lan: Lan) -> None:
    with events_in(lan) as events:
        away = LinkEvent("eth1", there=False)
        lan.run_in("host", "ip", "link", "set", "eth1", "down")
        all_news = await heard(events, lan, LinkEvent("nic"), "ip", "link", "set", "eth1", "name", "nic")
        assert away in all_news
        gone = LinkEvent("nic", there=False)
        await heard(
            events, lan, gone, "ip", "link", "set", "nic", "netns", lan.namespace("gateway"), "name", "guest"
        )


@on_reactor
async def test_leaving_a_bridge_is_no_deletion(lan: Lan) -> None:
    for command in ("add bridge type bridge", "add one type veth peer name two", "set one master bridge"):
        lan.run_in("host", "ip", "link", *command.split())
    with events_in(lan) as events:
        leave_and_add = "ip link set one nomaster; ip link add last type bridge"
        all_news = await heard(events, lan, LinkEvent("last"), "sh", "-c", leave_and_add)
    assert LinkEvent("one") in all_news
    assert LinkEvent("one", there=False) not in all_news


@on_reactor
async def test_lost_events_are_reported_once_and_later_ones_arrive(lan: Lan) -> None:
    flood = "for i in $(seq 4000); do echo link set eth1 alias a$i; echo link set eth1 alias b$i; done"
    with events_in(lan) as events:
        # While this runs the reactor hears nothing.
        all_news = await heard(events, lan, LinkEvent(""), "sh", "-c", f"{flood} | ip -batch -")
        assert all_news.count(LinkEvent("")) == 1
        await heard(events, lan, LinkEvent("late"), *("ip", "link", "add", "late", "type", "bridge"))


@on_reactor
async def test_changes_of_the_hosts_addresses_are_reported(lan: Lan) -> None:
    from twisted.internet import reactor

    waiting: list[Deferred[None]] = []

    def changed() -> None:
        while waiting:
            waiting.pop().callback(None)

    events = LinkEvents(reactor, changed)
    within(lan, "host", events.open)
    try:
        for address in ("10.9.9.9/24", "fd09::9/64"):
            for word in ("add", "delete"):
                reported: Deferred[None] = Deferred()
                waiting.append(reported)
                lan.run_in("host", "ip", "address", word, address, "dev", "eth1")
                reported.addTimeout(60, reactor)
                await reported
    finally:
        events.close()
