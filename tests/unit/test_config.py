"""Settings from option texts and the environment."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import parse_address, parse_network, parse_range
from macvlan_twisted.config import Config
from macvlan_twisted.given_settings import settings_from
from macvlan_twisted.option_values import MODES, parse_interface_name
from macvlan_twisted.service_options import OPTIONS


def given_(**texts: str | list[str]) -> Config:
    """Settings from options, whose names are written with underscores."""
    return settings_from(
        {name.replace("_", "-"): [text] if isinstance(text, str) else text for name, text in texts.items()},
        {},
    )


class OptionTableTests(SynchronousTestCase):
    def test_nothing_given_is_the_defaults(self) -> None:
        self.assertEqual(settings_from({}, {}), Config())

    def test_every_option_sets_a_setting_of_its_own_and_has_help(self) -> None:
        self.assertEqual(len({option.setting for option in OPTIONS}), len(OPTIONS))
        for option in OPTIONS:
            self.assertTrue(hasattr(Config(), option.setting), option.name)
            self.assertTrue(option.help.endswith("."), option.name)

    def test_options_of_the_specification_are_there(self) -> None:
        names = {option.name for option in OPTIONS}
        for name in (
            "gateway",
            "macvlan-subnet",
            "ip-range",
            "exclude",
            "host-interface",
            "mode",
            "mtu",
            "plugin-name",
            "plugin-dir",
            "listen",
            "state-dir",
            "netlink-threads",
            "network",
            "docker-host",
            "log-format",
            "debug",
        ):
            self.assertIn(name, names)

    def test_no_engine_is_asked_where_none_is_wanted(self) -> None:
        for text in ("none", "None", ""):
            self.assertEqual(settings_from({"docker-host": [text]}, {}).docker_host, "")
            self.assertEqual(settings_from({}, {"MACVLAN_TWISTED_DOCKER_HOST": text}).docker_host, "")
        self.assertTrue(settings_from({}, {}).docker_host)
        self.assertIsNone(settings_from({}, {"MACVLAN_TWISTED_HOST_INTERFACE": ""}).host_interface)

    def test_an_engine_that_is_not_asked_cannot_create_a_network(self) -> None:
        with self.assertRaisesRegex(
            ValueError, "--network lan .* --docker-host none .* leave one of them out"
        ):
            settings_from({"docker-host": ["none"], "network": ["lan"]}, {})

    def test_every_option_can_come_from_the_environment(self) -> None:
        texts = {
            "gateway": "192.168.1.1",
            "macvlan-subnet": "192.168.1.0/24",
            "ip-range": "192.168.1.64/26",
            "exclude": "192.168.1.9",
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
            "network": "lan",
            "docker-host": "unix:///tmp/docker.sock",
            "socket-group": "docker",
            "log-format": "json",
            "debug": "1",
            "dhcp-vendor-class": "lan",
            "conflict-detection": "off",
            "conflict-wait": "rfc5227",
            "announce": "off",
            "host-access": "yes",
            "dhcp": "yes",
            "dhcp-release": "no",
            "dhcp-readdress": "yes",
            "dhcp-timeout": "3",
            "reconcile-every": "30",
            "identity": "random",
        }
        for option in OPTIONS:
            text = texts[option.name]
            by_environment = settings_from({}, {option.environment_variable: text})
            self.assertEqual(by_environment, settings_from({option.name: [text]}, {}), option.name)
            self.assertNotEqual(by_environment, Config(), option.name)

    def test_the_command_line_wins_over_the_environment(self) -> None:
        self.assertEqual(settings_from({"mode": ["vepa"]}, {"MACVLAN_TWISTED_MODE": "private"}).mode, "vepa")
        self.assertEqual(
            settings_from({"exclude": ["10.0.0.1"]}, {"MACVLAN_TWISTED_EXCLUDE": "10.0.0.2"}).excluded,
            (parse_range("10.0.0.1"),),
        )

    def test_an_empty_environment_variable_is_none(self) -> None:
        environment = {each.environment_variable: "" for each in OPTIONS if not each.is_off_when_empty}
        self.assertEqual(settings_from({}, environment), Config())

    def test_several_values_of_an_environment_variable_stand_apart_by_commas_or_blanks(self) -> None:
        found = settings_from(
            {},
            {
                "MACVLAN_TWISTED_EXCLUDE": "10.0.0.1,10.0.0.4-10.0.0.9 fd00::1",
                "MACVLAN_TWISTED_GATEWAY": "10.0.0.1, fd00::1",
            },
        )
        self.assertEqual(
            found.excluded, tuple(map(parse_range, ("10.0.0.1", "10.0.0.4-10.0.0.9", "fd00::1")))
        )
        self.assertEqual(found.gateways, (parse_address("10.0.0.1"), parse_address("fd00::1")))

    def test_a_flag_in_the_environment_can_say_no(self) -> None:
        for text, debug in (
            ("1", True),
            ("yes", True),
            ("0", False),
            ("no", False),
            ("off", False),
            ("False", False),
        ):
            self.assertEqual(settings_from({}, {"MACVLAN_TWISTED_DEBUG": text}).debug, debug, text)
        with self.assertRaisesRegex(ValueError, "MACVLAN_TWISTED_DEBUG: 'perhaps' is neither true nor false"):
            settings_from({}, {"MACVLAN_TWISTED_DEBUG": "perhaps"})

    def test_the_last_of_a_repeated_option_counts(self) -> None:
        self.assertEqual(given_(mode=["vepa", "private"]).mode, "private")


class WrongValueTests(SynchronousTestCase):
    def test_every_wrong_value_is_told_with_option_value_and_remedy(self) -> None:
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
            ("plugin-dir", "plugins", "start with '/'"),
            ("state-dir", "state", "start with '/'"),
            ("netlink-threads", "0", "from 1 to 64"),
            ("netlink-threads", "65", "from 1 to 64"),
            ("docker-host", "tcp://1.2.3.4:2375", "unix:///var/run/docker.sock"),
            ("log-format", "xml", "text or json"),
            ("network", " ", "give one, like lan"),
        ):
            for where, options, environment in (
                (f"--{name}", {name: [text]}, {}),
                (
                    f"MACVLAN_TWISTED_{name.upper().replace('-', '_')}",
                    {},
                    {f"MACVLAN_TWISTED_{name.upper().replace('-', '_')}": text},
                ),
            ):
                if environment and name in ("exclude", "ip-range", "gateway") and " " in text:
                    continue
                with self.assertRaises(ValueError) as caught:
                    settings_from(options, environment)
                message = str(caught.exception)
                self.assertTrue(message.startswith(where + ": "), message)
                self.assertIn(remedy, message)
                if text.strip():
                    self.assertIn(text, message)

    def test_one_value_a_family(self) -> None:
        both = given_(gateway=["10.0.0.1", "fd00::1"], macvlan_subnet=["10.0.0.0/24", "fd00::/64"])
        self.assertEqual(both.gateway_of_version(6), parse_address("fd00::1"))
        self.assertEqual(both.subnet_of_version(4), parse_network("10.0.0.0/24"))
        for name, texts in (
            ("gateway", ["10.0.0.1", "10.0.0.2"]),
            ("macvlan_subnet", ["fd00::/64", "fd01::/64"]),
            ("ip_range", ["10.0.0.0/26", "10.0.0.64/26"]),
        ):
            with self.assertRaises(ValueError) as caught:
                given_(**{name: texts})
            self.assertIn("--" + name.replace("_", "-"), str(caught.exception))
            self.assertIn("once a family", str(caught.exception))

    def test_a_gateway_outside_the_subnet_is_refused(self) -> None:
        with self.assertRaises(ValueError) as caught:
            given_(gateway="10.0.1.1", macvlan_subnet="10.0.0.0/24")
        self.assertIn("--gateway 10.0.1.1 is not in --macvlan-subnet 10.0.0.0/24", str(caught.exception))

    def test_a_link_local_gateway_is_refused_with_what_to_do(self) -> None:
        with self.assertRaisesRegex(ValueError, "--gateway fe80::1 is link-local.*leave it out"):
            given_(gateway="fe80::1", macvlan_subnet="fd00::/64")

    def test_a_range_outside_the_subnet_is_refused(self) -> None:
        with self.assertRaises(ValueError) as caught:
            given_(ip_range="10.0.1.0/26", macvlan_subnet="10.0.0.0/24")
        self.assertIn("--ip-range 10.0.1.0/26 is not in --macvlan-subnet 10.0.0.0/24", str(caught.exception))

    @given(st.sampled_from([option.name for option in OPTIONS]), st.text(max_size=40))
    def test_any_text_for_any_option_is_taken_or_a_ValueError_that_names_the_option(
        self, name: str, text: str
    ) -> None:
        try:
            settings_from({name: [text]}, {})
        except ValueError as error:
            self.assertIn(f"--{name}", str(error))


class InterfaceNameTests(SynchronousTestCase):
    def test_the_kernels_limit_is_in_bytes(self) -> None:
        self.assertEqual(parse_interface_name("é" * 7), "é" * 7)
        with self.assertRaises(ValueError):
            parse_interface_name("é" * 8)

    def test_what_the_kernel_refuses_is_refused(self) -> None:
        for text in ("", ".", "..", "a b", "a/b", "a:b", "a\n", "a\0", "sixteen-letters-"):
            with self.assertRaises(ValueError, msg=repr(text)):
                parse_interface_name(text)


class DerivedSettingsTests(SynchronousTestCase):
    def test_the_socket_is_where_engines_look(self) -> None:
        self.assertEqual(Config().socket_path, "/run/docker/plugins/macvlan-twisted.sock")
        self.assertEqual(given_(plugin_name="lan", plugin_dir="/x/").socket_path, "/x/lan.sock")

    def test_the_gateway_of_a_subnet_is_the_one_inside_it(self) -> None:
        config = given_(gateway=["10.0.0.1", "fd00::1"])
        self.assertEqual(config.gateway_for(parse_network("10.0.0.0/8")), parse_address("10.0.0.1"))
        self.assertEqual(config.gateway_for(parse_network("fd00::/64")), parse_address("fd00::1"))
        self.assertIsNone(config.gateway_for(parse_network("10.1.0.0/16")))

    def test_an_ip_range_counts_only_for_the_subnet_that_holds_it(self) -> None:
        config = given_(ip_range=["10.0.0.64/26", "fd00::/80"])
        self.assertEqual(config.ip_range_in(parse_network("10.0.0.0/24")), parse_network("10.0.0.64/26"))
        self.assertEqual(config.ip_range_in(parse_network("fd00::/64")), parse_network("fd00::/80"))
        self.assertIsNone(config.ip_range_in(parse_network("10.0.1.0/24")))

    def test_all_modes_of_the_kernel_are_modes(self) -> None:
        for mode in MODES:
            self.assertEqual(given_(mode=mode).mode, mode)
        self.assertEqual(set(MODES), {"bridge", "private", "vepa", "passthru", "source"})
