"""A container's link in its sandbox: reads and changes its addresses and routes."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Interface, IPv4Network
from typing import Any

from attrs import evolve, frozen

from ..addresses import IPAddress, parse_address
from ..errors import LinkError
from ..failpoints import Failpoint
from .kernel import Readdress
from .sockets import error_number

# Remedy of these errors: see the reason in the message.

_MAIN_TABLE = 254
_PROTO_KERNEL = 2  # with an address, and gone with it (rtnetlink.h: RTPROT_KERNEL)
_PROTO_BOOT = 3
_UNICAST = 1
_ON_LINK, _UNIVERSE = 253, 0
_EVERYWHERE = IPv4Network("0.0.0.0/0")
_ADD_ADDRESS = Failpoint("netlink.sandbox_address.add", "a container whose lease moved gets its new address")
_REMOVE_ADDRESS = Failpoint(
    "netlink.sandbox_address.remove", "a container whose lease moved loses its old address"
)
_ADD_ROUTE = Failpoint("netlink.sandbox_route.add", "a container whose lease moved gets a route")
_REMOVE_ROUTE = Failpoint("netlink.sandbox_route.remove", "a container whose lease moved loses a route")
_UNREACHABLE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL, errno.ENETDOWN})


@frozen
class _Route:
    destination: IPv4Network
    gateway: IPAddress | None
    source: IPAddress | None
    metric: int
    protocol: int
    scope: int

    def __str__(self) -> str:
        where = "default" if self.destination == _EVERYWHERE else str(self.destination)
        return where if self.gateway is None else f"{where} via {self.gateway}"


@frozen
class _LinkState:
    """The IPv4 addresses of a link, and the routes by it that the kernel did not make itself."""

    addresses: tuple[IPv4Interface, ...]
    routes: tuple[_Route, ...]


class NetnsLinkEditor:
    """
    :param netlink: an ``IPRoute`` of the sandbox.
    """

    _index: int

    def __init__(self, netlink: Any) -> None:
        self._netlink = netlink

    def _find(self, mac: str) -> int:
        """:raises LinkError: not exactly one macvlan link has the MAC, so it is another sandbox."""
        with _link_errors("cannot list the links of a sandbox"):
            found: list[int] = [each["index"] for each in self._netlink.link("dump") if _is_ours(each, mac)]
        if len(found) != 1:
            # Remedy: restart the container.
            raise LinkError(
                f"found {len(found)} macvlan links with MAC {mac} in the sandbox, expected one; nothing was changed",
                errno.ENODEV,
            )
        return found[0]

    def move(self, move: Readdress) -> tuple[str, ...]:
        """As :meth:`~macvlan_twisted.netlink.kernel.Sandboxes.move`."""
        self._index = self._find(move.mac)
        before, has_default = self._read()
        after = _moved(before, has_default, move)
        try:
            lost = self._apply(after)
        except LinkError as failure:
            try:
                self._apply(before)
            except LinkError as another:
                raise LinkError(
                    f"{failure}; and the changes made so far could not be undone: {another}", failure.errno
                ) from None
            raise
        return tuple(map(str, lost))

    def _read(self) -> tuple[_LinkState, bool]:
        """The link, and whether the sandbox has a default route by any link."""
        with _link_errors("cannot read the addresses and routes of a sandbox"):
            addresses = tuple(
                IPv4Interface((each.get_attr("IFA_LOCAL"), each["prefixlen"]))
                for each in self._netlink.get_addr(family=socket.AF_INET, index=self._index)
            )
            routes = [
                each
                for each in self._netlink.route("dump", family=socket.AF_INET)
                if each.get_attr("RTA_TABLE", each["table"]) == _MAIN_TABLE and each["type"] == _UNICAST
            ]
        own_routes = tuple(
            _route(each)
            for each in routes
            if each.get_attr("RTA_OIF") == self._index and each["proto"] != _PROTO_KERNEL
        )
        return _LinkState(addresses, own_routes), any(each["dst_len"] == 0 for each in routes)

    def _apply(self, wanted: _LinkState) -> list[_Route]:
        """Addresses first, since routes need them. Those that are there already are left alone."""
        self._add_addresses(wanted)
        for address in self._read()[0].addresses:
            if address not in wanted.addresses:
                self._delete_address(address)
        # With promote_secondaries off, the kernel deletes secondary addresses with the primary one of their subnet.
        self._add_addresses(wanted)
        for route in self._read()[0].routes:
            if route not in wanted.routes:
                self._delete_route(route)
        return list(self._add_routes(wanted))

    def _add_addresses(self, wanted: _LinkState) -> None:
        there = self._read()[0].addresses
        for address in wanted.addresses:
            if address not in there:
                request = {"address": str(address.ip), "prefixlen": address.network.prefixlen}
                if address.network.prefixlen < 31:
                    request["broadcast"] = str(address.network.broadcast_address)
                with _link_errors(f"cannot add address {address} to a container"), _ADD_ADDRESS:
                    self._netlink.addr("add", index=self._index, family=socket.AF_INET, **request)

    def _delete_address(self, address: IPv4Interface) -> None:
        with (
            _link_errors(f"cannot remove address {address} from a container", errno.EADDRNOTAVAIL),
            _REMOVE_ADDRESS,
        ):
            self._netlink.addr(
                "del", index=self._index, address=str(address.ip), prefixlen=address.network.prefixlen
            )

    def _delete_route(self, route: _Route) -> None:
        with _link_errors(f"cannot remove a container's route {route}", errno.ESRCH), _REMOVE_ROUTE:
            self._netlink.route("del", **self._request(route))

    def _add_routes(self, wanted: _LinkState) -> Iterator[_Route]:
        there = self._read()[0].routes
        for route in sorted(wanted.routes, key=lambda each: each.gateway is not None):
            if route in there:
                continue
            try:
                with _link_errors(f"cannot add a container's route {route}", errno.EEXIST), _ADD_ROUTE:
                    self._netlink.route("add", **self._request(route))
            except LinkError as failure:
                if failure.errno not in _UNREACHABLE or route.destination == _EVERYWHERE:
                    raise
                yield route

    def _request(self, route: _Route) -> dict[str, Any]:
        request: dict[str, Any] = {
            "family": socket.AF_INET,
            "dst": str(route.destination),
            "oif": self._index,
            "proto": route.protocol,
            "scope": route.scope,
        }
        for name, value in (("gateway", route.gateway), ("prefsrc", route.source)):
            if value is not None:
                request[name] = str(value)
        if route.metric:
            request["priority"] = route.metric
        return request


def _moved(before: _LinkState, has_default: bool, move: Readdress) -> _LinkState:
    arriving = IPv4Interface(str(move.arriving))
    kept = tuple(each for each in before.addresses if each.ip not in (*move.leaving, arriving.ip))
    routes = list(_changed(before.routes, move))
    if not has_default and move.routers_before and move.router is not None:
        routes.append(
            _new_route(_EVERYWHERE, move.router)
        )  # the kernel deleted it with the last address of its subnet
    for destination, next_hop in move.routes:
        if isinstance(destination, IPv4Network) and all(each.destination != destination for each in routes):
            routes.append(_new_route(destination, next_hop))
    return _LinkState((*kept, arriving), tuple(routes))


def _new_route(destination: IPv4Network, next_hop: IPAddress | None) -> _Route:
    return _Route(destination, next_hop, None, 0, _PROTO_BOOT, _ON_LINK if next_hop is None else _UNIVERSE)


def _changed(routes: Iterable[_Route], move: Readdress) -> Iterator[_Route]:
    for route in routes:
        source = move.arriving.ip if route.source in move.leaving else route.source
        if route.destination == _EVERYWHERE and route.gateway in move.routers_before:
            if move.router is not None:
                yield evolve(route, source=source, gateway=move.router)
        else:
            yield evolve(route, source=source)


def _is_ours(link: Any, mac: str) -> bool:
    info = link.get_attr("IFLA_LINKINFO")
    kind = info.get_attr("IFLA_INFO_KIND") if info else None
    return kind == "macvlan" and (link.get_attr("IFLA_ADDRESS") or "").lower() == mac


def _route(message: Any) -> _Route:
    def address(name: str) -> IPAddress | None:
        text = message.get_attr(name)
        return None if text is None else parse_address(text)

    return _Route(
        destination=IPv4Network((message.get_attr("RTA_DST") or "0.0.0.0", message["dst_len"])),
        gateway=address("RTA_GATEWAY"),
        source=address("RTA_PREFSRC"),
        metric=message.get_attr("RTA_PRIORITY") or 0,
        protocol=message["proto"],
        scope=message["scope"],
    )


@contextmanager
def _link_errors(doing: str, *done: int) -> Iterator[None]:
    """Raise netlink's errors as :class:`LinkError`, with a message that begins with *doing*; ignore the codes *done*."""
    try:
        yield
    except Exception as error:
        code = error_number(error)
        if code is None:
            raise
        if code not in done or isinstance(error, OSError):
            raise LinkError(f"{doing}: {os.strerror(code)}", code) from None
