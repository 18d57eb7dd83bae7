"""
``--network NAME``: the network that is there as soon as the engine is.

The modern form of what the ancestor called ``docker -d --default-network=macvlan:foo``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.logger import Logger

from ..settings import Settings
from .api import Engine, EngineAbsent, EngineRefused

_log = Logger(namespace="macvlan_twisted.engine")

FIRST_DELAY = 1.0
LONGEST_DELAY = 30.0
"""Seconds between two questions: doubled each time from the first to the longest."""


def describe_network(name: str, settings: Settings) -> dict[str, Any]:
    """
    What the engine is asked to create. Subnet and gateway are always spelt out: ``--ip`` needs the one, and
    no engine then makes up the other.
    """
    subnets = []
    for subnet in settings.subnets:
        config = {"Subnet": str(subnet)}
        gateway, ip_range = settings.gateway_for(subnet), settings.ip_range_in(subnet)
        if gateway is not None:
            config["Gateway"] = str(gateway)
        if ip_range is not None:
            config["IPRange"] = str(ip_range)
        subnets.append(config)
    versions = {subnet.version for subnet in settings.subnets}
    options = {"macvlan_mode": settings.mode}
    if settings.host_interface is not None:
        options["parent"] = settings.host_interface
    if settings.mtu is not None:
        options["mtu"] = str(settings.mtu)
    description: dict[str, Any] = {
        "Name": name,
        "CheckDuplicate": True,
        "Driver": settings.plugin_name,
        "EnableIPv6": 6 in versions,
        "IPAM": {"Driver": settings.plugin_name, "Config": subnets},
        "Options": options,
    }
    if settings.host_interface is not None:
        description["IPAM"]["Options"] = {"parent": settings.host_interface}
    if versions == {6}:
        description["EnableIPv4"] = False
    return description


async def ensure_network(
    name: str, settings: Settings, engine: Engine, wait: Callable[[float], Awaitable[object]]
) -> None:
    """
    Create the network once the engine answers, unless it exists; an engine that is absent is waited for.

    :param wait: waits for some seconds.
    """
    if not settings.subnets:
        _log.error(
            "network {name} is not created: no subnet is known; start with --macvlan-subnet and --gateway",
            name=name,
        )
        return
    delay, told, waited = FIRST_DELAY, "", False
    while True:
        try:
            if await engine.has_network(name):
                _log.info("network {name} exists already and is left as it is", name=name)
                return
            network_id = await engine.create_network(describe_network(name, settings))
        except EngineAbsent:
            if not waited:
                waited = True
                _log.info("network {name} is created as soon as the engine answers", name=name)
        except EngineRefused as refusal:
            if str(refusal) != told:
                told = str(refusal)
                _log.error("network {name} is not created yet: {reason}", name=name, reason=told)
        else:
            _log.info("network {name} created in the engine: {network}", name=name, network=network_id[:12])
            return
        await wait(delay)
        delay = min(delay * 2, LONGEST_DELAY)
