"""The configuration from the texts of options and from the environment."""

from __future__ import annotations

from attrs import fields
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import parse_address, parse_network, parse_range
from macvlan_twisted.config import OPTIONS, Config, misspelt_variables
from macvlan_twisted.option_values import MacvlanMode, parse_interface_name
from macvlan_twisted.options import variable_of

TEXTS = {
    "gateway": "192.168.1.1",
    "macvlan-subnet": "192.168.1.0/24",
    "ip-range": "192.168.1.64/26",
    "exclude": "192.168.1.9",
    "fleet-share": "1/2",
    "fleet": "etcd://a:2379,b:2379",
    "fleet-host": "a",
    "fleet-ca": "/tmp/ca.pem",
    "fleet-cert": "/tmp/host.pem",
    "fleet-key": "/tmp/host.key",
    "fleet-password-file": "/tmp/login",
    "fleet-takeover": "silent",
    "host-interface": "eth1",
    "mode": "vepa",
    "mtu": "9000",
    "plugin-name": "lan",
    "plugin-dir": "/tmp/plugins",
    "listen": "unix:/tmp/x",
    "state-dir": "/tmp/state",
    "runtime-dir": "/tmp/run",
    "recover": "1",
    "netlink-threads": "2",
    "create-network": "lan",
    "docker-host": "unix:///tmp/docker.sock",
    "socket-group": "docker",
    "log-format": "json",
    "debug": "1",
    "dhcp-vendor-class": "lan",
    "conflict-detection": "off",
    "probe-timeout": "rfc5227",
    "announce": "off",
    "host-access": "yes",
    "dhcp": "yes",
    "dhcp-release": "no",
    "dhcp-readdress": "yes",
    "dhcp-timeout": "3",
    "reconcile-interval": "30",
    "return-grace": "0",
    "identity": "random",
}
"""A value for each option, other than its default."""


def from_texts(*texts: tuple[str, str], **environment: str) -> Config:
    """Parse pairs of spelling and value, and variables without their prefix."""
    return Config.from_texts(texts, {f"MACVLAN_TWISTED_{name}": text for name, text in environment.items()})


class OptionTableTests(SynchronousTestCase):
    def test_no_texts_give_the_defaults(self) -> None:
        self.assertEqual(from_texts(), Config())

    def test_every_option_has_a_help_of_whole_sentences(self) -> None:
        for option in OPTIONS:
            self.assertTrue(option.help.endswith("."), option.name)

    def test_every_field_is_set_by_one_option_of_its_own(self) -> None:
        self.assertEqual([option.attribute for option in OPTIONS], [each.name for each in fields(Config)])
        spellings = [spelling for option in OPTIONS for spelling in option.spellings]
        self.assertEqual(len(spellings), len(set(spellings)))

    def test_docker_host_none_or_empty_means_no_engine(self) -> None:
        for text in ("none", "None", ""):
            self.assertEqual(from_texts(("docker-host", text)).docker_host, "")
            self.assertEqual(from_texts(DOCKER_HOST=text).docker_host, "")
        self.assertTrue(from_texts().docker_host)

    def test_create_network_needs_an_engine(self) -> None:
        with self.assertRaisesRegex(
            ValueError,
            "--create-network lan .* --docker-host is none: .* engine-api.conf.* leave --create-network out",
        ):
            from_texts(("docker-host", "none"), ("create-network", "lan"))

    def test_every_option_can_come_from_the_environment(self) -> None:
        self.assertEqual(set(TEXTS), {option.name for option in OPTIONS})
        for option in OPTIONS:
            text = TEXTS[option.name]
            by_environment = Config.from_texts((), {option.environment_variable: text})
            self.assertEqual(by_environment, from_texts((option.name, text)), option.name)
            self.assertNotEqual(by_environment, Config(), option.name)

    def test_command_line_wins_over_environment(self) -> None:
        self.assertEqual(from_texts(("mode", "vepa"), MODE="private").mode, "vepa")
        self.assertEqual(
            from_texts(("exclude", "10.0.0.1"), EXCLUDE="10.0.0.2").excluded, (parse_range("10.0.0.1"),)
        )

    def test_empty_variable_counts_as_unset(self) -> None:
        environment = {each.environment_variable: "" for each in OPTIONS if not each.counts_when_empty}
        self.assertEqual(Config.from_texts((), environment), Config())

    def test_variable_lists_values_with_commas_or_blanks(self) -> None:
        found = from_texts(EXCLUDE="10.0.0.1,10.0.0.4-10.0.0.9 fd00::1", GATEWAY="10.0.0.1, fd00::1")
        self.assertEqual(
            found.excluded, tuple(map(parse_range, ("10.0.0.1", "10.0.0.4-10.0.0.9", "fd00::1")))
        )
        self.assertEqual(found.gateways, (parse_address("10.0.0.1"), parse_address("fd00::1")))

    def test_variable_of_a_flag_is_a_truth_value(self) -> None:
        for text, debug in (
            ("1", True),
            ("yes", True),
            ("0", False),
            ("no", False),
            ("off", False),
            ("False", False),
        ):
            self.assertEqual(from_texts(DEBUG=text).debug, debug, text)
        with self.assertRaisesRegex(ValueError, "MACVLAN_TWISTED_DEBUG: 'perhaps' is neither true nor false"):
            from_texts(DEBUG="perhaps")

    def test_misspelt_variable_is_found(self) -> None:
        """Others of that prefix are not ours."""
        environment = {
            "MACVLAN_TWISTED_HOST_INTERFCE": "eth1",
            "MACVLAN_TWISTED_STATEDIR": "/x",
            "MACVLAN_TWISTED_SUBNET": "10.0.0.0/24",
            "MACVLAN_TWISTED_CACHE": "/y",
            "HOST_INTERFACE": "eth1",
        }
        self.assertEqual(
            dict(misspelt_variables(environment)),
            {
                "MACVLAN_TWISTED_HOST_INTERFCE": "MACVLAN_TWISTED_HOST_INTERFACE",
                "MACVLAN_TWISTED_STATEDIR": "MACVLAN_TWISTED_STATE_DIR",
            },
        )


class AliasTests(SynchronousTestCase):
    ALIASES = (
        ("reconcile-every", "reconcile-interval", "30", "5"),
        ("conflict-wait", "probe-timeout", "rfc5227", "2"),
        ("network", "create-network", "lan", "other"),
        ("subnet", "macvlan-subnet", "10.0.0.0/24", "fd00::/64"),
    )
    """Alias, name, and two values."""

    def test_the_aliases_are_those_of_the_table(self) -> None:
        found = {(alias, option.name) for option in OPTIONS for alias in option.aliases}
        self.assertEqual(found, {(alias, name) for alias, name, _, _ in self.ALIASES})

    def test_alias_means_the_same_as_the_name(self) -> None:
        for alias, name, text, _ in self.ALIASES:
            expected = from_texts((name, text))
            self.assertNotEqual(expected, Config())
            self.assertEqual(from_texts((alias, text)), expected)
            self.assertEqual(Config.from_texts((), {variable_of(alias): text}), expected)
            self.assertEqual(
                Config.from_texts((), {variable_of(alias): text, variable_of(name): ""}), expected
            )

    def test_alias_and_name_together_are_one_option_set_twice(self) -> None:
        for alias, name, one, other in self.ALIASES:
            twice = from_texts((name, one), (name, other))
            self.assertEqual(from_texts((alias, one), (name, other)), twice)
            self.assertEqual(from_texts((name, one), (alias, other)), twice)
            in_environment = Config.from_texts((), {variable_of(name): other, variable_of(alias): one})
            self.assertEqual(in_environment, twice)
        with self.assertRaisesRegex(ValueError, "--macvlan-subnet is set 2 times for IPv4"):
            from_texts(("subnet", "10.0.0.0/24"), ("macvlan-subnet", "10.0.1.0/24"))

    def test_command_line_alias_wins_over_the_variable_of_the_name(self) -> None:
        self.assertEqual(from_texts(("network", "lan"), CREATE_NETWORK="other").create_network, "lan")

    def test_error_names_the_spelling_that_was_used(self) -> None:
        with self.assertRaisesRegex(ValueError, "^--conflict-wait: 'soon' is not a number"):
            from_texts(("conflict-wait", "soon"))
        with self.assertRaisesRegex(ValueError, "^MACVLAN_TWISTED_CONFLICT_WAIT: 'soon'"):
            from_texts(CONFLICT_WAIT="soon")


class WrongValueTests(SynchronousTestCase):
    def test_error_has_option_value_and_remedy(self) -> None:
        for name, text, remedy in (
            ("gateway", "router", "192.168.1.1"),
            ("macvlan-subnet", "192.168.1.1/24", "192.168.1.0/24"),
            ("ip-range", "192.168.1.", "192.168.1.0/24"),
            ("exclude", "10.0.0.9-10.0.0.1", "10.0.0.1-10.0.0.9"),
            ("host-interface", "a name far too long", "1 to 15"),
            ("host-interface", "eth/1", "1 to 15"),
            ("mode", "Bridge", "bridge, private, vepa, passthru, source"),
            ("mtu", "big", "from 68 to 65535"),
            ("mtu", "67", "from 68 to 65535"),
            ("mtu", "65536", "from 68 to 65535"),
            ("plugin-name", "../lan", "letters, digits"),
            ("plugin-dir", "plugins", "start it with '/'"),
            ("state-dir", "state", "start it with '/'"),
            ("netlink-threads", "0", "from 1 to 64"),
            ("netlink-threads", "65", "from 1 to 64"),
            ("docker-host", "tcp://1.2.3.4:2375", "unix:///var/run/docker.sock"),
            ("log-format", "xml", "text or json"),
            *(
                ("fleet-share", text, "use K/N for the K-th of N hosts")
                for text in ("1", "0/2", "3/2", "1/65", "1/2/3", "+1/2", "½/2", "1/" + "9" * 5000)
            ),
            ("create-network", " ", "use a name like lan"),
        ):
            for where, texts, environment in (
                (f"--{name}", [(name, text)], {}),
                (variable_of(name), [], {variable_of(name): text}),
            ):
                if environment and name in ("exclude", "ip-range", "gateway") and " " in text:
                    continue
                with self.assertRaises(ValueError) as caught:
                    Config.from_texts(texts, environment)
                message = str(caught.exception)
                self.assertTrue(message.startswith(where + ": "), message)
                self.assertIn(remedy, message)
                if text.strip():
                    self.assertIn(text, message)

    def test_near_miss_of_an_enumeration_is_suggested(self) -> None:
        for name, text, meant in (
            ("mode", "brigde", "bridge"),
            ("mode", "Passthrough", "passthru"),
            ("conflict-detection", "strickt", "strict"),
            ("identity", "adress", "address"),
            ("log-format", "jason", "json"),
        ):
            with self.assertRaisesRegex(ValueError, rf"'{text}' is .*: did you mean {meant}\? use "):
                from_texts((name, text))
        with self.assertRaisesRegex(ValueError, "'xyz' is not a macvlan mode: use one of"):
            from_texts(("mode", "xyz"))

    def test_addresses_are_set_once_for_each_family(self) -> None:
        both = from_texts(
            ("gateway", "10.0.0.1"),
            ("gateway", "fd00::1"),
            ("macvlan-subnet", "10.0.0.0/24"),
            ("macvlan-subnet", "fd00::/64"),
        )
        self.assertEqual(both.gateway_of_version(6), parse_address("fd00::1"))
        self.assertEqual(both.subnet_of_version(4), parse_network("10.0.0.0/24"))
        for name, texts in (
            ("gateway", ["10.0.0.1", "10.0.0.2"]),
            ("macvlan-subnet", ["fd00::/64", "fd01::/64"]),
            ("ip-range", ["10.0.0.0/26", "10.0.0.64/26"]),
        ):
            with self.assertRaises(ValueError) as caught:
                from_texts(*((name, text) for text in texts))
            self.assertIn(f"--{name}", str(caught.exception))
            self.assertIn("once for each family", str(caught.exception))

    def test_gateway_and_range_must_suit_the_subnet(self) -> None:
        for name, text, subnet, words in (
            (
                "gateway",
                "10.0.1.1",
                "10.0.0.0/24",
                "--gateway 10.0.1.1 is not in --macvlan-subnet 10.0.0.0/24",
            ),
            ("gateway", "fe80::1", "fd00::/64", "--gateway fe80::1 is link-local.*leave it out"),
            (
                "ip-range",
                "10.0.1.0/26",
                "10.0.0.0/24",
                "--ip-range 10.0.1.0/26 is not in --macvlan-subnet 10.0.0.0/24",
            ),
        ):
            with self.assertRaisesRegex(ValueError, words):
                from_texts((name, text), ("macvlan-subnet", subnet))

    @given(
        st.sampled_from([spelling for option in OPTIONS for spelling in option.spellings]),
        st.text(max_size=40),
    )
    def test_any_text_is_parsed_or_refused_by_option_name(self, name: str, text: str) -> None:
        try:
            from_texts((name, text))
        except ValueError as error:
            self.assertIn(f"--{name}", str(error))


class InterfaceNameTests(SynchronousTestCase):
    def test_limit_is_in_bytes(self) -> None:
        self.assertEqual(parse_interface_name("é" * 7), "é" * 7)
        with self.assertRaises(ValueError):
            parse_interface_name("é" * 8)

    def test_names_that_the_kernel_refuses_are_refused(self) -> None:
        for text in ("", ".", "..", "a b", "a/b", "a:b", "a\n", "a\0", "sixteen-letters-"):
            with self.assertRaises(ValueError, msg=repr(text)):
                parse_interface_name(text)


class DerivedValueTests(SynchronousTestCase):
    def test_socket_is_where_engines_look(self) -> None:
        self.assertEqual(Config().socket_path, "/run/docker/plugins/macvlan-twisted.sock")
        self.assertEqual(from_texts(("plugin-name", "lan"), ("plugin-dir", "/x/")).socket_path, "/x/lan.sock")

    def test_gateway_of_a_subnet_is_the_one_inside_it(self) -> None:
        config = from_texts(("gateway", "10.0.0.1"), ("gateway", "fd00::1"))
        self.assertEqual(config.gateway_for(parse_network("10.0.0.0/8")), parse_address("10.0.0.1"))
        self.assertEqual(config.gateway_for(parse_network("fd00::/64")), parse_address("fd00::1"))
        self.assertIsNone(config.gateway_for(parse_network("10.1.0.0/16")))

    def test_ip_range_counts_for_the_subnet_around_it(self) -> None:
        config = from_texts(("ip-range", "10.0.0.64/26"), ("ip-range", "fd00::/80"))
        self.assertEqual(config.ip_range_in(parse_network("10.0.0.0/24")), parse_network("10.0.0.64/26"))
        self.assertEqual(config.ip_range_in(parse_network("fd00::/64")), parse_network("fd00::/80"))
        self.assertIsNone(config.ip_range_in(parse_network("10.0.1.0/24")))

    def test_every_mode_of_the_kernel_is_a_mode(self) -> None:
        for mode in MacvlanMode:
            self.assertIs(from_texts(("mode", mode.value)).mode, mode)
        self.assertEqual(set(MacvlanMode), {"bridge", "private", "vepa", "passthru", "source"})
