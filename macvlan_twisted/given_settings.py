"""The settings that a user gives, on the command line and in the environment; and whether they go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .config import Config
from .service_options import OPTIONS


def settings_from(given: Mapping[str, Sequence[str]], environment: Mapping[str, str]) -> Config:
    """
    The settings that option texts amount to; *given* wins over *environment*, which wins over defaults.

    :param given: texts by option name, in the order in which they came.
    :raises ValueError: names the option, the value and the remedy.
    """
    values: dict[str, Any] = {}
    for option in OPTIONS:
        texts = list(given.get(option.name, ()))
        source = f"--{option.name}"
        in_environment = environment.get(option.environment_variable)
        if not texts and (in_environment or (option.is_off_when_empty and in_environment is not None)):
            source = option.environment_variable
            text = environment[source]
            texts = text.replace(",", " ").split() if option.repeats else [text]
        if not texts:
            continue
        try:
            parsed = [option.parse(text) for text in texts]
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None
        values[option.setting] = tuple(parsed) if option.repeats else parsed[-1]
    config = Config(**values)
    _check_families(config)
    if config.network is not None and not config.docker_host:
        raise ValueError(
            f"--network {config.network} has an engine create that network, and --docker-host none says that no engine "
            "is to be asked: leave one of them out"
        )
    return config


def _check_families(config: Config) -> None:
    for name, values in (
        ("--gateway", config.gateways),
        ("--macvlan-subnet", config.subnets),
        ("--ip-range", config.ip_ranges),
    ):
        versions = [value.version for value in values]
        for version in (4, 6):
            if versions.count(version) > 1:
                raise ValueError(
                    f"{name} was given {versions.count(version)} times for IPv{version}: give it once a family"
                )
    for gateway in config.gateways:
        if gateway.is_link_local:
            raise ValueError(
                f"--gateway {gateway} is link-local, and no engine takes such a gateway: leave it out; containers learn "
                "an IPv6 router from its advertisements"
            )
        subnet = config.subnet_of_version(gateway.version)
        if subnet is not None and gateway not in subnet:
            raise ValueError(
                f"--gateway {gateway} is not in --macvlan-subnet {subnet}: give the router's address in it"
            )
    for ip_range in config.ip_ranges:
        subnet = config.subnet_of_version(ip_range.version)
        if subnet is not None and not ip_range.subnet_of(subnet):  # type: ignore[arg-type]
            raise ValueError(f"--ip-range {ip_range} is not in --macvlan-subnet {subnet}: give a part of it")
