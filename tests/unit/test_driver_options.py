"""The ``-o`` options of a network."""

from __future__ import annotations

from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.driver.models import Subnet
from macvlan_twisted.driver.options import OPTIONS, NetworkOptions, parse_options
from macvlan_twisted.driver.requests import CreateNetwork
from macvlan_twisted.driver.validation import leases_addresses, refuse_contradictions
from macvlan_twisted.errors import RequestRefused
from macvlan_twisted.option_values import MacvlanMode


class OptionsTestCase(SynchronousTestCase):
    def refusal(self, **given_options: str) -> str:
        return self.refusal_of(given_options)

    def refusal_of(self, given_options: dict[str, str]) -> str:
        with self.assertRaises(RequestRefused) as caught:
            parse_options(given_options)
        return str(caught.exception)


class KeyTests(OptionsTestCase):
    def test_no_options_set_nothing(self) -> None:
        self.assertEqual(parse_options({}), NetworkOptions())

    def test_synonyms_mean_the_same(self) -> None:
        for names, text, expected in (
            (("parent", "host_iface"), "eth1", NetworkOptions(parent="eth1")),
            (("macvlan_mode", "mode"), "vepa", NetworkOptions(mode=MacvlanMode.VEPA)),
            (("mtu", "com.docker.network.driver.mtu"), "1400", NetworkOptions(mtu=1400)),
        ):
            for name in names:
                self.assertEqual(parse_options({name: text}), expected, name)
            self.assertEqual(parse_options(dict.fromkeys(names, text)), expected)

    def test_earlier_spellings_of_keys_work(self) -> None:
        for key, name in (("force_mac", "allow_parent_mac_change"), ("force_wifi", "allow_wireless_parent")):
            for text, expected in (("true", True), ("false", False)):
                self.assertIs(getattr(parse_options({key: text}), name), expected)
            self.assertEqual(parse_options({key: "", name: ""}), parse_options({name: ""}))
            refusal = self.refusal_of({key: "", name: "false"})
            self.assertIn(f"-o {name}=false conflicts with -o {key}=", refusal)
            self.assertIn(f": {name} and {key} are two names for one option; set only one", refusal)
            self.assertNotIn(key, self.refusal(parnet="eth1"))

    def test_contradicting_synonyms_are_refused_with_both_values(self) -> None:
        message = self.refusal(parent="eth1", host_iface="eth2")
        for word in ("parent=eth1", "host_iface=eth2"):
            self.assertIn(word, message)
        self.assertIn(
            "conflicts with", self.refusal_of({"mtu": "1400", "com.docker.network.driver.mtu": "1500"})
        )

    def test_unknown_key_is_refused_with_the_known_ones(self) -> None:
        message = self.refusal(parnet="eth1")
        self.assertIn("-o parnet", message)
        for option in OPTIONS:
            self.assertIn(option.name, message)

    def test_keys_of_docker_itself_are_ignored(self) -> None:
        self.assertEqual(parse_options({"com.docker.network.bridge.name": "x"}), NetworkOptions())
        self.assertIn("unknown option", self.refusal_of({"com.dockerx": "x"}))

    def test_unknown_key_suggests_a_near_one(self) -> None:
        self.assertIn("-o parrent: did you mean parent? use one of", self.refusal_of({"parrent": "eth1"}))
        self.assertIn("-o zebra: use one of", self.refusal_of({"zebra": "x"}))

    def test_spellings_are_unique(self) -> None:
        names = [name for option in OPTIONS for name in option.spellings]
        self.assertEqual(len(names), len(set(names)))

    @given(
        st.dictionaries(
            st.sampled_from([name for option in OPTIONS for name in option.spellings]) | st.text(max_size=20),
            st.text(max_size=20) | st.integers().map(str),
            max_size=4,
        )
    )
    def test_any_texts_are_parsed_or_refused_by_key(self, texts: dict[str, str]) -> None:
        try:
            parse_options(texts)
        except RequestRefused as refusal:
            self.assertTrue(any(f"-o {name}" in str(refusal) for name in texts))


class ValueTests(OptionsTestCase):
    def test_empty_mode_is_the_builtin_drivers_default(self) -> None:
        for mode in MacvlanMode:
            self.assertEqual(parse_options({"mode": mode}).mode, mode)
        self.assertEqual(parse_options({"macvlan_mode": ""}).mode, "bridge")

    def test_unknown_mode_is_refused_as_by_the_builtin_driver(self) -> None:
        self.assertIn("requested macvlan mode 'brigde' is not valid", self.refusal(macvlan_mode="brigde"))

    def test_loopback_is_refused_as_by_the_builtin_driver(self) -> None:
        self.assertIn("loopback interface is not a valid macvlan parent link", self.refusal(parent="lo"))

    def test_parent_must_be_a_valid_link_name(self) -> None:
        for text in ("", "sixteen-letters-", "a b", "../eth0"):
            self.assertIn("-o parent", self.refusal(parent=text))

    def test_vlan_id_is_bounded_as_by_the_builtin_driver(self) -> None:
        for text in ("1", "20", "4094"):
            self.assertEqual(parse_options({"vlan_id": text}).vlan_id, int(text))
        for text in ("0", "4095", "99999"):
            self.assertIn(f"vlan id must be between 1-4094, received: {text}", self.refusal(vlan_id=text))
        for text in ("", "x", "-1", "2.0", "２０", "1" * 5000):
            self.assertIn("unable to parse a valid vlan id", self.refusal(vlan_id=text))

    def test_numbers_are_bounded_by_kernel_types(self) -> None:
        self.assertEqual(parse_options({"mtu": "9000"}).mtu, 9000)
        self.assertEqual(parse_options({"bcqueuelen": str(2**32 - 1)}).broadcast_queue_length, 2**32 - 1)
        self.assertEqual(parse_options({"bclim": "-1"}).broadcast_limit, -1)
        for name, texts, words in (
            ("mtu", ("67", "65536", "x", "", "-1", "1" * 5000), "from 68 to 65535"),
            ("bcqueuelen", (str(2**32), "-1"), "-o bcqueuelen"),
            ("bclim", ("-2", str(2**31), "", "--1"), "-o bclim"),
        ):
            for text in texts:
                self.assertIn(words, self.refusal(**{name: text}))

    def test_flag_without_value_means_yes(self) -> None:
        for text, meant in (("", True), ("true", True), ("1", True), ("FALSE", False), ("0", False)):
            for key in ("nopromisc", "allow_wireless_parent", "allow_parent_mac_change"):
                self.assertIs(getattr(parse_options({key: text}), key), meant)
        self.assertIn("neither true nor false", self.refusal(allow_wireless_parent="maybe"))

    def test_source_macs_are_a_list_without_duplicates(self) -> None:
        self.assertEqual(
            parse_options(
                {"source_macs": "02:00:00:00:00:01, 02:00:00:00:00:0A 02:00:00:00:00:01"}
            ).source_macs,
            ("02:00:00:00:00:01", "02:00:00:00:00:0a"),
        )
        for text in ("", " , ", "02:00", "01:00:00:00:00:01"):
            self.assertIn("-o source_macs", self.refusal(source_macs=text))


class ContradictionTests(SynchronousTestCase):
    def refused(self, mode: MacvlanMode, options: NetworkOptions, *words: str) -> None:
        with self.assertRaises(RequestRefused) as caught:
            refuse_contradictions(options, mode)
        for word in words:
            self.assertIn(word, str(caught.exception))

    def test_source_macs_belong_to_mode_source(self) -> None:
        macs = NetworkOptions(source_macs=("02:00:00:00:00:01",))
        refuse_contradictions(macs, MacvlanMode.SOURCE)
        self.refused(MacvlanMode.BRIDGE, macs, "source_macs", "bridge", "-o macvlan_mode=source")

    def test_mode_source_needs_source_macs(self) -> None:
        self.refused(MacvlanMode.SOURCE, NetworkOptions(), "source_macs")

    def test_passthru_options_belong_to_mode_passthru(self) -> None:
        for options, word in (
            (NetworkOptions(nopromisc=True), "nopromisc"),
            (NetworkOptions(allow_parent_mac_change=True), "allow_parent_mac_change"),
        ):
            refuse_contradictions(options, MacvlanMode.PASSTHRU)
            self.refused(MacvlanMode.VEPA, options, word, "vepa")

    def test_other_modes_need_no_option(self) -> None:
        for mode in set(MacvlanMode) - {MacvlanMode.SOURCE}:
            refuse_contradictions(NetworkOptions(), mode)


class LeasingTests(SynchronousTestCase):
    """Whether a network with ``--ipam-driver null`` leases its containers' addresses."""

    def leases(self, default: bool, **given_options: str) -> bool:
        subnet = Subnet(ip_network("0.0.0.0/0"), null_ipam=True)
        request = CreateNetwork("1" * 64, given_options, subnets=(subnet,))
        return leases_addresses(request, parse_options(given_options), default)

    def test_option_of_the_network_wins_over_that_of_the_service(self) -> None:
        for default in (True, False):
            self.assertIs(self.leases(default), default)
            self.assertTrue(self.leases(default, dhcp="true"))
            self.assertFalse(self.leases(default, dhcp="false"))
