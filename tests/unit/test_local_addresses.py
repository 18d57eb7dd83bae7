"""The host's own addresses are listed when they are asked for, and remembered only while changes are reported."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import IPAddress, parse_address
from macvlan_twisted.errors import LinkError
from macvlan_twisted.lan.local_addresses import LocalAddresses

ADDRESS = parse_address("192.168.1.10")


class ListingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.lists: list[Deferred[dict[IPAddress, str]]] = []
        self.local = LocalAddresses(cast(Any, self))
        self.is_reporting = True

    def host_addresses(self) -> Deferred[dict[IPAddress, str]]:
        """Of :class:`~macvlan_twisted.netlink.links.Links`."""
        self.lists.append(Deferred())
        return self.lists[-1]

    def ask(self) -> Deferred[str | None]:
        return ensureDeferred(self.local.link_of(ADDRESS))

    def answers(self, link: str | None) -> None:
        """The kernel lists the addresses for a question, which gets the right answer."""
        asked = self.ask()
        self.lists[-1].callback({} if link is None else {ADDRESS: link})
        self.assertEqual(self.successResultOf(asked), link)

    def test_addresses_are_listed_each_time_while_nobody_reports_changes(self) -> None:
        self.answers("eth0")
        self.answers(None)
        self.assertEqual(len(self.lists), 2)

    def test_list_is_remembered_until_a_change_is_reported(self) -> None:
        self.local.follow(lambda: self.is_reporting)
        self.answers(None)
        self.assertIsNone(self.successResultOf(self.ask()))
        self.local.changed()
        self.answers("eth0")
        self.assertEqual(self.successResultOf(self.ask()), "eth0")
        self.assertEqual(len(self.lists), 2)

    def test_list_is_not_relied_on_when_changes_are_not_reported_any_more(self) -> None:
        self.local.follow(lambda: self.is_reporting)
        self.answers(None)
        self.is_reporting = False
        self.answers("eth0")

    def test_change_during_a_listing_is_not_missed(self) -> None:
        self.local.follow(lambda: self.is_reporting)
        asked = self.ask()
        self.local.changed()
        self.lists[0].callback({})
        self.assertIsNone(self.successResultOf(asked))
        self.answers("eth0")

    def test_questions_at_the_same_time_share_a_list(self) -> None:
        first, second = self.ask(), self.ask()
        self.assertEqual(len(self.lists), 1)
        self.lists[0].callback({ADDRESS: "eth0"})
        self.assertEqual([self.successResultOf(each) for each in (first, second)], ["eth0", "eth0"])

    def test_failure_is_for_all_who_wait_and_not_remembered(self) -> None:
        self.local.follow(lambda: self.is_reporting)
        first, second = self.ask(), self.ask()
        self.lists[0].errback(LinkError("no memory", 12))
        self.failureResultOf(first, LinkError)
        self.failureResultOf(second, LinkError)
        self.answers("eth0")
