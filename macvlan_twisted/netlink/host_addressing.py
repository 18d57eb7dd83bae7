"""Addresses, routes and sysctls of the host."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_interface
from typing import Any

from attrs import frozen

from ..addresses import IPAddress, IPInterface
from ..errors import LinkError
from ..failpoints import Failpoint
from .codec import (
    ADDRESS,
    IFA_ADDRESS,
    IFA_LOCAL,
    ROUTE,
    RTA_DST,
    RTA_GATEWAY,
    RTA_OIF,
    RTA_PREFSRC,
    RTA_PRIORITY,
    RTA_TABLE,
    RTM_GETADDR,
    RTM_GETROUTE,
    address_request,
    attributes_in,
    number_of,
    route_request,
)
from .kernel import DefaultRoute, HostRoute
from .sockets import NetlinkSockets, index_of, link_errors

# Remedy of these errors: see the reason in the message.

_IFA_F_NODAD = 0x02  # linux/if_addr.h

_WRITE_SETTING = Failpoint(
    "netlink.setting.write", "a setting of our own link on a parent is written (sysctl)"
)
_ADD_ADDRESS = Failpoint("netlink.address.add", "our own link on a parent gets an address")
_REMOVE_ADDRESS = Failpoint("netlink.address.remove", "an address of our own link on a parent is removed")
_ADD_ROUTE = Failpoint("netlink.route.add", "a route of the host to a container is made")
_REPLACE_ROUTE = Failpoint(
    "netlink.route.replace", "a route of the host to a container gets another source address"
)
_REMOVE_ROUTE = Failpoint("netlink.route.remove", "a route of the host to a container is removed")


_MAIN_TABLE = 254  # linux/rtnetlink.h
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_OF_A_ROUTE = (RTA_DST, RTA_GATEWAY, RTA_OIF, RTA_PREFSRC, RTA_PRIORITY, RTA_TABLE)


@frozen
class _Route:
    length: int
    """Of the destination's prefix."""
    protocol: int
    values: dict[int, bytes]
    """Attributes by their types."""


class HostAddressing(NetlinkSockets):
    """The part of :class:`~macvlan_twisted.netlink.kernel.Kernel` that is not about links themselves."""

    def default_routes(self) -> list[DefaultRoute]:
        found = []
        with link_errors("cannot read default routes"):
            for route in self._main_routes():
                if route.length == 0 and RTA_OIF in route.values:
                    gateway = route.values.get(RTA_GATEWAY)
                    found.append(
                        DefaultRoute(
                            link=socket.if_indextoname(number_of(route.values[RTA_OIF])),
                            gateway=ip_address(gateway) if gateway else None,
                            metric=number_of(route.values.get(RTA_PRIORITY, b"")),
                        )
                    )
        return sorted(found, key=lambda route: route.metric)

    def addresses_of(self, name: str) -> list[IPInterface]:
        with link_errors(f"cannot read addresses of link {name}"):
            wanted = index_of(name)
            return [address for index, address in self._addresses() if index == wanted]

    def host_addresses(self) -> dict[IPAddress, str]:
        with link_errors("cannot read the host's addresses"):
            found = list(self._addresses())
            names = {index: name_of(index) for index in {index for index, _ in found}}
            return {address.ip: names[index] for index, address in found}

    def _addresses(self) -> Iterator[tuple[int, IPInterface]]:
        """All addresses of the host, each with the index of its link."""
        for message in self._raw.dump(RTM_GETADDR, address_request()):
            family, length, _, _, index = ADDRESS.unpack_from(message)
            if family not in _FAMILIES:
                continue
            values = attributes_in(message, (IFA_ADDRESS, IFA_LOCAL), ADDRESS.size)
            yield index, ip_interface((values.get(IFA_LOCAL) or values[IFA_ADDRESS], length))

    def _main_routes(self) -> Iterator[_Route]:
        """Those of the main table, IPv4 first."""
        for family in _FAMILIES:
            for message in self._raw.dump(RTM_GETROUTE, route_request(family)):
                found, length, _, _, table, protocol, _, _, _ = ROUTE.unpack_from(message)
                if found != family:  # a kernel without IPv6 lists all others
                    continue
                values = attributes_in(message, _OF_A_ROUTE, ROUTE.size)
                if RTA_TABLE in values:
                    table = number_of(values[RTA_TABLE])
                if table == _MAIN_TABLE:
                    yield _Route(length, protocol, values)

    def configure(self, name: str, values: Mapping[str, str]) -> None:
        for key, value in values.items():
            family, setting = key.split("/")
            try:
                with _WRITE_SETTING, open(f"/proc/sys/net/{family}/conf/{name}/{setting}", "w") as file:
                    file.write(value)
            except FileNotFoundError:
                if family == "ipv6" and not os.path.isdir("/proc/sys/net/ipv6"):
                    continue
                # Remedy: try again.
                raise LinkError(
                    f"cannot set {setting} of link {name}: the link is gone", errno.ENODEV
                ) from None
            except OSError as error:
                raise LinkError(
                    f"cannot set {setting} of link {name}: {os.strerror(error.errno or 0)}", error.errno or 0
                ) from None

    def add_address(self, name: str, address: IPInterface) -> None:
        request: dict[str, Any] = {"address": str(address.ip), "prefixlen": address.network.prefixlen}
        if address.version == 6:
            request["flags"] = _IFA_F_NODAD
        with link_errors(f"cannot add address {address} to link {name}"), _ADD_ADDRESS:
            self._netlink.addr("replace", index=index_of(name), **request)

    def delete_address(self, name: str, address: IPInterface) -> bool:
        try:
            with link_errors(f"cannot remove address {address} from link {name}"), _REMOVE_ADDRESS:
                self._netlink.addr(
                    "del", index=index_of(name), address=str(address.ip), prefixlen=address.network.prefixlen
                )
        except LinkError as failure:
            if failure.errno in (errno.ENODEV, errno.EADDRNOTAVAIL):
                return False
            raise
        return True

    def add_host_route(self, route: HostRoute) -> None:
        doing = f"cannot add the route to {route.destination} through {route.link}"
        try:
            with link_errors(doing), _ADD_ROUTE:
                self._netlink.route("add", **_route_request(route))
        except LinkError as failure:
            if failure.errno != errno.EEXIST:
                raise
            present = next(
                (
                    each
                    for each in self.host_routes(route.link, route.protocol)
                    if each.destination == route.destination
                ),
                None,
            )
            if present is None:
                raise LinkError(
                    f"{doing}: the host has another route to that address: remove it; ip route show "
                    f"{route.destination} lists it",
                    errno.EEXIST,
                ) from None
            if present != route:
                with link_errors(doing), _REPLACE_ROUTE:
                    self._netlink.route("replace", **_route_request(route))

    def delete_host_route(self, route: HostRoute) -> bool:
        try:
            with (
                link_errors(f"cannot remove the route to {route.destination} through {route.link}"),
                _REMOVE_ROUTE,
            ):
                self._netlink.route("del", **_route_request(route))
        except LinkError as failure:
            if failure.errno in (errno.ENODEV, errno.ESRCH):
                return False
            raise
        return True

    def host_routes(self, link: str, protocol: int) -> list[HostRoute]:
        try:
            index = index_of(link)
        except LinkError as failure:
            if failure.errno == errno.ENODEV:
                return []
            raise
        found = []
        with link_errors(f"cannot read the routes through {link}"):
            for route in self._main_routes():
                destination = route.values.get(RTA_DST, b"")
                is_single = destination and route.length == 8 * len(destination)
                if (
                    is_single
                    and route.protocol == protocol
                    and number_of(route.values.get(RTA_OIF, b"")) == index
                ):
                    source = route.values.get(RTA_PREFSRC)
                    found.append(
                        HostRoute(
                            destination=ip_address(destination),
                            link=link,
                            source=ip_address(source) if source else None,
                            protocol=protocol,
                        )
                    )
        return found


def name_of(index: int) -> str:
    """Empty if the link has gone meanwhile."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""


def _route_request(route: HostRoute) -> dict[str, Any]:
    request = {
        "family": socket.AF_INET if route.destination.version == 4 else socket.AF_INET6,
        "dst": f"{route.destination}/{route.destination.max_prefixlen}",
        "oif": index_of(route.link),
        "proto": route.protocol,
        "scope": "link" if route.destination.version == 4 else "universe",
    }
    if route.source is not None:
        request["prefsrc"] = str(route.source)
    return request
