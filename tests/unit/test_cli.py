"""The command line of ``twistd macvlan``."""

from __future__ import annotations

import os
import sys

from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import parse_address, parse_network
from macvlan_twisted.config import GROUPS, OPTIONS, Config
from macvlan_twisted.option_values import MacvlanMode
from macvlan_twisted.tap import Options

from .test_config import TEXTS

WRONG = {
    "--gateway=192.168.77": ("--gateway", "'192.168.77'"),
    "--macvlan-subnet=192.168.77.5/24": ("--macvlan-subnet", "192.168.77.5/24", "192.168.77.0/24"),
    "--gateway=10.0.0.1 --macvlan-subnet=192.168.77.0/24": ("--gateway", "10.0.0.1", "192.168.77.0/24"),
    "--gateway=10.0.0.1 --gateway=10.0.0.2": ("--gateway", "once for each family"),
    "--ip-range=10.9.0.0/24 --macvlan-subnet=10.8.0.0/16": ("--ip-range", "10.9.0.0/24"),
    "--exclude=192.168.77.9-192.168.77.1": ("--exclude", "192.168.77.9-192.168.77.1"),
    "--host-interface=much-too-long-a-name": ("--host-interface", "'much-too-long-a-name'", "15"),
    "-mode=bridges": ("--mode", "'bridges'", "passthru"),
    "--mtu=1": ("--mtu", "1", "68"),
    "--netlink-threads=none": ("--netlink-threads", "'none'", "64"),
    "--plugin-name=a/b": ("--plugin-name", "'a/b'", "letters"),
    "--plugin-dir=run": ("--plugin-dir", "'run'", "'/'"),
    "--state-dir=lib": ("--state-dir", "'lib'", "'/'"),
    "--docker-host=tcp://10.0.0.1": ("--docker-host", "tcp://10.0.0.1", "unix://"),
    "--log-format=xml": ("--log-format", "'xml'", "json"),
}
"""Command lines, and what the error about each must name."""


def parsed(*arguments: str) -> Config:
    options = Options()
    options.parseOptions(list(arguments))
    return options.config


class CommandLineTests(SynchronousTestCase):
    def setUp(self) -> None:
        for option in OPTIONS:
            if option.environment_variable in os.environ:
                self.patch(
                    os,
                    "environ",
                    {
                        name: text
                        for name, text in os.environ.items()
                        if not name.startswith("MACVLAN_TWISTED_")
                    },
                )

    def test_the_ancestors_command_line_still_works(self) -> None:
        found = parsed(
            "--gateway=192.168.1.1",
            "--macvlan-subnet=192.168.1.0/24",
            "-mode=bridge",
            "--host-interface=eth1",
        )
        self.assertEqual(
            found,
            Config(
                gateways=(parse_address("192.168.1.1"),),
                subnets=(parse_network("192.168.1.0/24"),),
                host_interface="eth1",
            ),
        )

    def test_every_option_accepts_gos_spelling(self) -> None:
        for option in OPTIONS:
            if option.is_flag:
                self.assertEqual(parsed(f"-{option.name}"), parsed(f"--{option.name}"))
                continue
            text = TEXTS[option.name]
            expected = parsed(f"--{option.name}={text}")
            self.assertNotEqual(expected, Config())
            self.assertEqual(parsed(f"-{option.name}={text}"), expected)
            self.assertEqual(parsed(f"-{option.name}", text), expected)
            self.assertEqual(parsed(f"--{option.name}", text), expected)

    def test_aliases_are_options_that_the_help_leaves_out(self) -> None:
        aliased = [option for option in OPTIONS if option.aliases]
        self.assertTrue(aliased)
        text = str(Options())
        for option in aliased:
            for alias in option.aliases:
                value = "10.0.0.0/8" if option.repeats else "7"
                expected = parsed(f"--{option.name}={value}")
                self.assertEqual(parsed(f"--{alias}={value}"), expected)
                self.assertEqual(parsed(f"-{alias}", value), expected)
                self.assertNotRegex(text, rf"--{alias}\b")

    def test_wrong_value_is_refused_with_option_and_remedy(self) -> None:
        for words, named in WRONG.items():
            error = self.assertRaises(usage.UsageError, parsed, *words.split())
            for word in named:
                self.assertIn(word, str(error), words)

    def test_last_spelling_on_the_command_line_counts(self) -> None:
        found = parsed("--reconcile-every=5", "--reconcile-interval=6", "--reconcile-every=7")
        self.assertEqual(found.reconcile_interval, 7)

    def test_d_is_short_for_debug(self) -> None:
        self.assertTrue(parsed("-d").debug)
        self.assertTrue(parsed("--debug").debug)
        self.assertFalse(parsed().debug)

    def test_gateway_may_be_repeated_for_each_family(self) -> None:
        self.assertEqual(
            parsed("--gateway", "10.0.0.1", "--gateway", "fd00::1").gateways,
            (parse_address("10.0.0.1"), parse_address("fd00::1")),
        )

    def test_environment_variables_set_options(self) -> None:
        self.patch(os, "environ", {"MACVLAN_TWISTED_MODE": "vepa", "MACVLAN_TWISTED_MTU": "1400"})
        self.assertEqual(parsed("--mtu=1300"), Config(mode=MacvlanMode.VEPA, mtu=1300))

    def test_wrong_value_is_a_usage_error_of_one_line(self) -> None:
        with self.assertRaises(usage.UsageError) as caught:
            parsed("--mtu=many")
        message = str(caught.exception)
        self.assertTrue(message.startswith("--mtu: 'many'"), message)
        self.assertNotIn("\n", message)

    def test_unknown_options_and_arguments_are_usage_errors(self) -> None:
        for argument in ("--no-such-option", "-no-such-option", "stray"):
            with self.assertRaises(usage.UsageError, msg=argument):
                parsed(argument)

    def test_unknown_option_suggests_a_near_one(self) -> None:
        for argument, message in (
            ("--stat-dir=/x", "unknown option --stat-dir: did you mean --state-dir?"),
            ("--host_interface=eth1", "unknown option --host_interface: did you mean --host-interface?"),
            ("--zebra", "unknown option --zebra"),
            ("-z", "unknown option -z"),
        ):
            with self.assertRaises(usage.UsageError) as caught:
                parsed(argument)
            self.assertEqual(str(caught.exception), message)

    def test_wrong_use_of_an_option_is_explained(self) -> None:
        for argument, message in (
            ("--mtu", "option --mtu needs a value: write --mtu=BYTES"),
            ("--debug=1", "option --debug takes no value: leave it out"),
            ("--plugin=x", "option --plugin is ambiguous: write --plugin-name or --plugin-dir"),
            ("eth1", "'eth1' is not an option: write --NAME=VALUE"),
        ):
            with self.assertRaises(usage.UsageError) as caught:
                parsed(argument)
            self.assertEqual(str(caught.exception), message)

    def test_program_prints_one_line_about_a_wrong_option(self) -> None:
        printed: list[str] = []
        self.patch(sys, "stderr", _Lines(printed))
        options = Options()
        options.parent = usage.Options()
        for argument in ("--mode=brigde", "--stat-dir=/x", "--mtu", "stray"):
            with self.assertRaises(SystemExit) as caught:
                options.parseOptions([argument])
            self.assertEqual(caught.exception.code, 1)
            line = "".join(printed)
            printed.clear()
            self.assertRegex(line, r"^macvlan-twisted: [^\n]* \(see twistd macvlan --help\)\n$")

    def test_other_systems_than_linux_are_refused(self) -> None:
        self.patch(sys, "platform", "darwin")
        with self.assertRaises(usage.UsageError) as caught:
            parsed()
        self.assertIn("darwin", str(caught.exception))

    def test_help_shows_every_option_with_its_default(self) -> None:
        text = " ".join(str(Options()).split())
        for option in OPTIONS:
            self.assertIn(f"--{option.name}", text)
            if option.default_text and not option.is_flag:
                self.assertIn(f"[default: {option.default_text}]", text, option.name)

    def test_help_fits_the_terminal_and_is_in_groups(self) -> None:
        for width in (60, 80, 120):
            lines = Options().getUsage(width).splitlines()
            self.assertLessEqual(max(map(len, lines)), width)
            self.assertEqual(
                [line[:-1] for line in lines if line in {f"{each}:" for each in GROUPS}], list(GROUPS)
            )

    def test_version_ends_with_status_0(self) -> None:
        printed: list[str] = []
        self.patch(sys, "stdout", _Lines(printed))
        with self.assertRaises(SystemExit) as caught:
            parsed("--version")
        self.assertEqual(caught.exception.code, 0)
        self.assertRegex("".join(printed), r"^macvlan-twisted \d+\.\d+")


class _Lines:
    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def write(self, text: str) -> int:
        self._lines.append(text)
        return len(text)

    def flush(self) -> None:
        """As files have it."""
