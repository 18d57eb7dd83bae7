"""``macvlan-twisted fleet``: what it shows, and how a host is forgotten."""

from __future__ import annotations

import json
import os
from contextlib import redirect_stderr
from io import StringIO

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.commands.cli import main, make_parser
from macvlan_twisted.commands.fleet_options import SHARED
from macvlan_twisted.commands.fleet_reports import findings
from macvlan_twisted.errors import RequestRefused
from macvlan_twisted.fleet.interfaces import ClaimState, FleetUnavailable, Wanted

from .fleet_command_cases import STATION, FleetCommandCase, claim, host, shared

HERE, THERE, GONE = host("here"), host("there"), host("gone")
MAC = "7a:00:00:00:00:05"


class CommandLineTests(SynchronousTestCase):
    def test_every_command_shares_the_options_of_the_connection(self) -> None:
        parser = make_parser()
        for command in SHARED:
            words = [*command.split(), *(["x"] if command.endswith("forget") else [])]
            parsed = parser.parse_args([*words, "--fleet=etcd://a", "--fleet-password-file=/p"])
            self.assertEqual((parsed.command, parsed.fleet), (command, "etcd://a"))

    def test_errors_are_one_line_and_name_the_remedy(self) -> None:
        self.patch(os, "environ", {})
        for words, status, part in (
            (("status", "--fleet=a:2379"), 2, "use etcd://"),
            (("hosts", "--fleet-host=a/b", "--fleet=etcd://a"), 2, "letters"),
        ):
            error = StringIO()
            with redirect_stderr(error), self.assertRaises(SystemExit) as ended:
                main(["fleet", *words])
            self.assertEqual(ended.exception.code, status)
            self.assertIn(part, error.getvalue())


class ReportTests(FleetCommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.fill(
            claim("192.168.1.9", HERE, container="web", mac=MAC),
            claim("192.168.1.10", HERE, ClaimState.RESTING, "old"),
            claim("fd00::1", THERE, ClaimState.RESERVE),
            claim("10.0.0.1", GONE, lan="lab"),
            shared("192.168.1.1", HERE, THERE),
            alive=(HERE,),
            known=(THERE,),
        )

    def test_status_counts_and_names_what_needs_attention(self) -> None:
        self.assertEqual(self.run_command("status"), 0)
        self.assertEqual(
            self.said,
            [
                f"etcd: etcd://a:2379, cluster first, revision {self.store.revision}",
                "hosts: 2 known, 1 alive",
                "LAN default: 1 reserve, 1 used, 1 resting, 1 shared",
                "LAN lab: 0 reserve, 1 used, 0 resting, 0 shared",
                "this host: here, alive, 0 reserve, 1 used, 1 resting, 1 shared",
                "attention: host gone has addresses (1), but is not known in the fleet: start the plugin there, or if the host "
                "is gone for good, run macvlan-twisted fleet forget gone",
            ],
        )

    def test_status_of_a_host_outside_of_the_fleet_says_so(self) -> None:
        self.name = "stranger"
        self.run_command("status")
        self.assertIn("this host: stranger, which is not in the fleet", self.said)

    def test_hosts_are_alive_silent_or_unknown(self) -> None:
        self.run_command("hosts")
        self.assertEqual(
            [line.split() for line in self.said[1:]],
            [
                ["gone", "unknown", "-", "0", "1", "0", "0"],
                ["here", "alive", "instance-here", "0", "1", "1", "1"],
                ["there", "silent", "instance-there", "1", "0", "0", "1"],
            ],
        )

    def test_addresses_are_in_order_and_can_be_chosen(self) -> None:
        everything = ["192.168.1.1", "192.168.1.9", "192.168.1.10", "fd00::1", "10.0.0.1"]
        for words, expected in (
            ((), everything),
            (("--lan=lab",), everything[4:]),
            (("--lan=nowhere",), []),
            (("--host=there",), ["192.168.1.1", "fd00::1"]),
            (("--host=here", "--lan=default"), everything[:3]),
        ):
            self.said.clear()
            self.run_command("addresses", *words)
            self.assertEqual([line.split()[0] for line in self.said[1:]], expected, words)
            self.said.clear()
            self.run_command("addresses", "--json", *words)
            self.assertEqual([each["address"] for each in json.loads("\n".join(self.said))], expected)
            self.said.clear()
        self.run_command("addresses")
        self.assertEqual(self.said[1].split(), ["192.168.1.1", "default", "here,there", "shared", "-", "-"])
        self.assertEqual(self.said[2].split(), ["192.168.1.9", "default", "here", "used", "web", MAC])

    def test_json_and_export_are_one_document(self) -> None:
        for words in (("status", "--json"), ("hosts", "--json"), ("export",)):
            self.said.clear()
            self.run_command(*words)
            document = json.loads("\n".join(self.said))
        self.assertEqual(document["revision"], self.store.revision)
        self.assertEqual(document["known"][0], {"host": "here", "instance": "instance-here"})
        self.assertEqual(len(document["addresses"]), 5)
        self.assertEqual(document["addresses"][1]["claim"], "claim-192.168.1.9")
        self.assertEqual([each["host"] for each in document["addresses"][0]["holders"]], ["here", "there"])

    def test_what_a_terminal_would_obey_is_escaped(self) -> None:
        self.fill(claim("192.168.1.20", THERE, container="a\x1b[2Jb"))
        self.run_command("addresses")
        self.assertSaid("192.168.1.20", "a\\x1b[2Jb")

    def test_store_that_does_not_answer_is_an_error(self) -> None:
        self.claims.is_cut = True
        with self.assertRaises(FleetUnavailable):
            self.run_command("status")

    def test_findings_name_hosts_and_remedies(self) -> None:
        now = host("there", "newer")
        for entries, wanted, parts in (
            ([claim("192.168.1.30", GONE)], (), ("host gone", "fleet forget gone")),
            (
                [claim("192.168.1.30", THERE), shared("192.168.1.1", THERE)],
                (),
                ("(2)", "instance instance-there", "fleet forget there --former"),
            ),
            (
                [claim("192.168.1.30", HERE, container="a", mac=MAC), claim("192.168.1.31", now, mac=MAC)],
                (),
                (
                    MAC,
                    "host here for container a (192.168.1.30)",
                    "host there (192.168.1.31)",
                    "--mac-address",
                ),
            ),
            (
                [claim("192.168.1.30", HERE, ClaimState.RESTING)],
                (Wanted("default", claim("192.168.1.30", HERE).address, now, "id"),),
                ("host there asks for address 192.168.1.30", "host here"),
            ),
            ([claim("192.168.1.30", now), shared("192.168.1.1", HERE, now)], (), ()),
        ):
            self.store.entries.clear()
            self.fill(*entries, alive=(HERE, now))
            found = list(findings(evolve(self.store.snapshot(), wanted=wanted)))
            self.assertEqual(len(found), bool(parts), found)
            for part in parts:
                self.assertIn(part, found[0])


class ForgetTests(FleetCommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.fill(
            claim("192.168.1.9", GONE, container="web", mac=MAC),
            claim("192.168.1.10", GONE, ClaimState.RESERVE),
            claim("192.168.1.11", HERE),
            shared("192.168.1.1", HERE, GONE),
            shared("192.168.1.2", GONE),
            alive=(HERE,),
            known=(GONE,),
        )

    def test_everything_of_the_host_goes_and_nothing_else(self) -> None:
        self.assertEqual(self.run_command("forget", "gone"), 0)
        self.assertEqual(self.asked, 1)
        self.assertEqual(self.probed(), {"eth0": {"192.168.1.9", "192.168.1.10"}})
        self.assertEqual(len(self.lan_sockets["eth0"].sent), 6, "three probes each")
        self.assertEqual(self.lan_sockets["eth0"].listeners, 0)
        self.assertEqual(
            {str(entry.address): entry for entry in self.store.entries.values()},
            {"192.168.1.11": claim("192.168.1.11", HERE), "192.168.1.1": shared("192.168.1.1", HERE)},
        )
        self.assertEqual(set(self.store.known), {"here"})
        self.assertSaid("freed: address 192.168.1.9", "container web")
        self.assertSaid("forgotten: host gone")

    def test_an_address_for_which_a_station_answers_stays(self) -> None:
        self.answering.add(("eth0", "192.168.1.9"))
        self.assertEqual(self.run_command("forget", "gone", "--yes"), 1)
        self.assertEqual(self.asked, 0)
        self.assertSaid("stays: address 192.168.1.9", STATION)
        self.assertIsNotNone(self.entry("192.168.1.9"))
        self.assertIsNone(self.entry("192.168.1.10"))
        self.assertIn("gone", self.store.known)

    def test_nothing_changes_in_a_dry_run_or_without_consent(self) -> None:
        self.agrees = False
        before = self.store.revision
        self.assertEqual(self.run_command("forget", "gone", "--dry-run"), 0)
        self.assertSaid("would be freed: address 192.168.1.9")
        self.assertEqual(self.asked, 0)
        self.assertEqual(self.run_command("forget", "gone"), 1)
        self.assertEqual((self.asked, self.store.revision), (1, before))

    def test_refusals_name_the_remedy_and_change_nothing(self) -> None:
        self.fill(claim("10.0.0.1", GONE, lan="lab"))
        before = self.store.revision
        for words, parts in (
            (("here",), ("host here is alive", "stop the plugin there")),
            (("nobody",), ("'nobody'", "gone, here")),
            (("nobody", "--former"), ("nobody", "--former")),
            (("gone",), ("LAN lab", "--parent lab=LINK", "--no-probe")),
            (("gone", "--parent=eth0"), ("LAN default", "--parent default=LINK")),
            (("gone", "--parent=eth0", "--parent=eth1"), ("--parent eth1", "LAN=LINK")),
            (("gone", "--parent=lab=eth9"), ("no Ethernet link eth9",)),
            (("gone", "--parent=a/b=eth1"), ("--parent a/b=eth1", "'a/b'")),
        ):
            with self.assertRaises(RequestRefused, msg=str(words)) as refused:
                self.run_command("forget", *words)
            for part in parts:
                self.assertIn(part, str(refused.exception), words)
        self.assertEqual((self.store.revision, self.asked), (before, 0))

    def test_each_lan_is_probed_on_its_parent(self) -> None:
        self.fill(claim("10.0.0.1", GONE, lan="lab"))
        for words in (("--parent=lab=eth1",), ("--parent=lab=eth1", "--parent=default=eth0")):
            self.run_command("forget", "gone", "--dry-run", *words)
            self.assertEqual(self.probed(), {"eth0": {"192.168.1.9", "192.168.1.10"}, "eth1": {"10.0.0.1"}})

    def test_a_probe_that_cannot_be_sent_refuses(self) -> None:
        def down(parent: str, speaker: str, mac: str) -> object:
            socket = make_socket(parent, speaker, mac)
            socket.down = True
            return socket

        make_socket = self._make_socket
        self.patch(self, "_make_socket", down)
        with self.assertRaises(RequestRefused) as refused:
            self.run_command("forget", "gone", "--yes")
        self.assertIn("cannot be probed (sending on eth0: Network is down)", str(refused.exception))
        self.assertIsNotNone(self.entry("192.168.1.9"))
        self.assertEqual(self.run_command("forget", "gone", "--yes", "--no-probe"), 0)
        self.assertIsNone(self.entry("192.168.1.9"))

    def test_a_host_that_comes_back_before_the_answer_is_left_alone(self) -> None:
        def comes_back() -> bool:
            self.fill(alive=(GONE,))
            return True

        self.patch(self, "_is_agreed", comes_back)
        with self.assertRaises(RequestRefused):
            self.run_command("forget", "gone")
        self.assertIsNotNone(self.entry("192.168.1.9"))

    def test_former_instances_go_while_the_host_is_alive(self) -> None:
        now = host("gone", "newer")
        self.fill(claim("192.168.1.20", now), shared("192.168.1.1", HERE, GONE, now), alive=(now,))
        self.assertEqual(self.run_command("forget", "gone", "--former"), 0)
        self.assertEqual(
            {str(entry.address) for entry in self.store.entries.values()},
            {"192.168.1.20", "192.168.1.11", "192.168.1.1"},
        )
        self.assertEqual(self.entry("192.168.1.1"), shared("192.168.1.1", HERE, now))
        self.assertEqual(self.store.alive["gone"].host, now)
        self.assertIn("gone", self.store.known)

    def test_a_host_without_record_can_be_forgotten(self) -> None:
        self.store.set_known("gone", None)
        self.assertEqual(self.run_command("forget", "gone"), 0)
        self.assertIsNone(self.entry("192.168.1.9"))

    def test_a_host_without_addresses_needs_no_parent(self) -> None:
        self.store.entries.clear()
        self.assertEqual(self.run_command("forget", "gone"), 0)
        self.assertEqual((self.probed(), set(self.store.known)), ({}, {"here"}))
