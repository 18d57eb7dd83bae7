"""
``--create-network NAME``: create a network in the engine, once the engine answers.

It replaces the ancestor's ``docker -d --default-network=macvlan:foo``.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import deferLater
from twisted.logger import Logger

from ..addresses import IPNetwork
from ..config import Config
from .interfaces import Engine, EngineError, EngineUnavailable

_log = Logger(namespace="macvlan_twisted.engine")

INITIAL_DELAY = 1.0
MAX_DELAY = 30.0
"""Seconds between two attempts: doubled after each, from the initial delay to the maximum."""


def subnets_for(config: Config) -> tuple[list[IPNetwork], list[IPNetwork]]:
    """
    Choose the subnets of the network.

    Engines before 28 pick a gateway for a subnet without one, and containers would send to a router that does not exist. So
    a family without a gateway is left out, unless no family has one.

    :return: the network's subnets, IPv4 first, and those left out.
    """
    subnets = sorted(config.subnets, key=lambda subnet: subnet.version)
    reached = [subnet for subnet in subnets if config.gateway_for(subnet) is not None]
    if not reached:
        return subnets, []
    return reached, [subnet for subnet in subnets if subnet not in reached]


def describe_network(name: str, config: Config) -> dict[str, Any]:
    """
    The body of ``POST /networks/create``. Subnets are always explicit, since ``--ip`` requires that, and so are their
    gateways as far as they are known.
    """
    subnets, _ = subnets_for(config)
    configs = []
    for subnet in subnets:
        ipam_config = {"Subnet": str(subnet)}
        gateway, ip_range = config.gateway_for(subnet), config.ip_range_in(subnet)
        if gateway is not None:
            ipam_config["Gateway"] = str(gateway)
        if ip_range is not None:
            ipam_config["IPRange"] = str(ip_range)
        configs.append(ipam_config)
    versions = {subnet.version for subnet in subnets}
    options: dict[str, str] = {"macvlan_mode": config.mode}
    if config.host_interface is not None:
        options["parent"] = config.host_interface
    if config.mtu is not None:
        options["mtu"] = str(config.mtu)
    description: dict[str, Any] = {
        "Name": name,
        "CheckDuplicate": True,
        "Driver": config.plugin_name,
        "EnableIPv6": 6 in versions,
        "IPAM": {"Driver": config.plugin_name, "Config": configs},
        "Options": options,
    }
    if config.host_interface is not None:
        description["IPAM"]["Options"] = {"parent": config.host_interface}
    if versions == {6}:
        description["EnableIPv4"] = False
    return description


async def ensure_network(
    name: str,
    config: Config,
    engine: Engine,
    clock: Any,
) -> None:
    """
    Create the network unless it exists. Tries again until the engine answers.

    :param clock: ``IReactorTime``
    """
    if not config.subnets:
        # Cause: --create-network needs a subnet, and the host interface has no address. Remedy: start the plugin with
        # --macvlan-subnet and --gateway.
        _log.error(
            "network {network}: not created, because no subnet is known; start the plugin with --macvlan-subnet and --gateway",
            network=name,
        )
        return
    delay, last_error, logged_wait = INITIAL_DELAY, "", False
    while True:
        try:
            exists = await engine.has_network(name)
            if exists:
                _log.info("network {network}: exists already, left unchanged", network=name)
                return
            network_id = await engine.create_network(describe_network(name, config))
        except EngineUnavailable:
            if not logged_wait:
                logged_wait = True
                _log.info("network {network}: will be created as soon as the engine answers", network=name)
        except EngineError as refusal:
            if str(refusal) != last_error:
                last_error = str(refusal)
                # Cause: the engine refuses or does not answer; the plugin tries again. Remedy: see the reason in the
                # line.
                _log.error("network {network}: not created yet ({reason})", network=name, reason=last_error)
        else:
            _log.info("network {network}: created in the engine ({id})", network=name, id=network_id[:12])
            _log_missing_subnets(name, config)
            return
        await deferLater(clock, delay)
        delay = min(delay * 2, MAX_DELAY)


def _log_missing_subnets(name: str, config: Config) -> None:
    subnets, left_out = subnets_for(config)
    for subnet in left_out:
        _log.info(
            "network {network}: created without subnet {subnet}, because no gateway in it is known; to include the subnet, remove "
            "the network and start the plugin with --gateway=ADDRESS",
            network=name,
            subnet=str(subnet),
        )
    for subnet in subnets:
        if config.gateway_for(subnet) is None:
            # Cause: the host has no default route through that subnet. Remedy: remove the network, and start the plugin
            # with --gateway and the router's address.
            _log.warn(
                "network {network}: no gateway in subnet {subnet} is known, and engines before 28 choose one themselves; "
                "remove the network and start the plugin with --gateway=ADDRESS",
                network=name,
                subnet=str(subnet),
            )
