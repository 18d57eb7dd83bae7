"""Addresses, routes and sysctls of the host."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping
from ipaddress import ip_interface
from typing import Any

from ..addresses import IPAddress, IPInterface, parse_address
from ..errors import LinkError
from ..failpoints import Failpoint
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


class HostAddressing(NetlinkSockets):
    """The part of :class:`~macvlan_twisted.netlink.kernel.Kernel` that is not about links themselves."""

    def default_routes(self) -> list[DefaultRoute]:
        found = []
        with link_errors("cannot read default routes"):
            for family in (socket.AF_INET, socket.AF_INET6):
                for route in self._netlink.get_default_routes(family=family):
                    link, gateway = route.get_attr("RTA_OIF"), route.get_attr("RTA_GATEWAY")
                    if link is None:
                        continue
                    found.append(
                        DefaultRoute(
                            link=socket.if_indextoname(link),
                            gateway=parse_address(gateway) if gateway else None,
                            metric=route.get_attr("RTA_PRIORITY") or 0,
                        )
                    )
        return sorted(found, key=lambda route: route.metric)

    def addresses_of(self, name: str) -> list[IPInterface]:
        with link_errors(f"cannot read addresses of link {name}"):
            return [
                ip_interface(
                    f"{message.get_attr('IFA_LOCAL') or message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}"
                )
                for message in self._netlink.get_addr(index=index_of(name))
            ]

    def host_addresses(self) -> dict[IPAddress, str]:
        with link_errors("cannot read the host's addresses"):
            names = dict(socket.if_nameindex())
            return {
                parse_address(message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")): names.get(
                    message["index"], ""
                )
                for message in self._netlink.addr("dump")
            }

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
            for family, length in ((socket.AF_INET, 32), (socket.AF_INET6, 128)):
                for message in self._netlink.route("dump", family=family):
                    if (message["proto"], message["dst_len"], message.get_attr("RTA_OIF")) == (
                        protocol,
                        length,
                        index,
                    ):
                        source = message.get_attr("RTA_PREFSRC")
                        found.append(
                            HostRoute(
                                destination=parse_address(message.get_attr("RTA_DST")),
                                link=link,
                                source=parse_address(source) if source else None,
                                protocol=protocol,
                            )
                        )
        return found


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
