"""
The kernel by rtnetlink: pyroute2 behind :class:`~macvlan_twisted.links.interface.Kernel`.

Every function is plain and blocking. pyroute2 keeps an event loop a thread, so each thread has an
``IPRoute`` of its own, closed when the thread ends.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from ipaddress import ip_interface
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl.ifinfmsg import macvx_data

from ..addresses import IPAddress, IPInterface, parse_address
from ..errors import LinkFailed
from .interface import DefaultRoute, HostRoute, LinkFacts, Port

_BY_KERNEL = {
    errno.EEXIST: "a link of that name exists already and is not touched",
    errno.ENODEV: "the link is not there (any more)",
    errno.EPERM: "permission denied: the plugin needs CAP_NET_ADMIN",
    errno.EOPNOTSUPP: "this kernel does not support it (a module may be missing)",
    errno.ENETDOWN: "the parent is down",
}

_IFA_F_NODAD = 0x02  # linux/if_addr.h


def _extend_macvlan_attributes() -> None:
    """pyroute2 0.9 drops attributes that are not in its map without a word; these are linux/if_link.h's."""
    if not any(row[0] == "IFLA_MACVLAN_BC_QUEUE_LEN" for row in macvx_data.nla_map):
        macvx_data.nla_map = (
            *macvx_data.nla_map,
            ("IFLA_MACVLAN_BC_QUEUE_LEN", "uint32"),
            ("IFLA_MACVLAN_BC_QUEUE_LEN_USED", "uint32"),
            ("IFLA_MACVLAN_BC_CUTOFF", "int32"),
        )


_extend_macvlan_attributes()


@contextmanager
def _told(doing: str) -> Iterator[None]:
    """Turn what netlink raises into a message that says what we were doing."""
    try:
        yield
    except NetlinkError as error:
        reason = _BY_KERNEL.get(error.code) or os.strerror(error.code) or str(error)
        raise LinkFailed(f"{doing}: {reason}", error.code) from None
    except OSError as error:
        raise LinkFailed(f"{doing}: {os.strerror(error.errno or 0)}", error.errno or 0) from None


def _index(name: str) -> int:
    """The index of a link of this namespace: 5 us, where a look-up by netlink takes 300."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        raise LinkFailed(f"link {name} is not there", errno.ENODEV) from None


class NetlinkKernel:
    """Links of the network namespace in which this process runs."""

    def __init__(self) -> None:
        self._of_thread = threading.local()

    @property
    def _netlink(self) -> Any:
        netlink = getattr(self._of_thread, "netlink", None)
        if netlink is None:
            netlink = self._of_thread.netlink = IPRoute()
        return netlink

    def close(self) -> None:
        """Close this thread's socket; those of others go with their threads."""
        netlink = getattr(self._of_thread, "netlink", None)
        if netlink is not None:
            netlink.close()
            del self._of_thread.netlink

    def find(self, name: str) -> LinkFacts | None:
        try:
            index = _index(name)
        except LinkFailed:
            return None
        try:
            with _told(f"reading link {name}"):
                return _facts(self._netlink.link("get", index=index)[0])
        except LinkFailed as failure:
            if failure.errno == errno.ENODEV:
                return None
            raise

    def exists(self, name: str) -> bool:
        try:
            socket.if_nametoindex(name)
        except OSError:
            return False
        return True

    def links(self) -> list[LinkFacts]:
        with _told("listing links"):
            return [_facts(message) for message in self._netlink.link("dump")]

    def add_port(self, port: Port, prove_mac_free: bool = False) -> None:
        request: dict[str, Any] = {
            "ifname": port.name,
            "kind": "macvlan",
            "link": _index(port.parent),
            "macvlan_mode": port.mode,
            "group": port.group,
        }
        if port.mtu is not None:
            request["mtu"] = port.mtu
        if port.mac is not None:
            request["address"] = port.mac
        if port.nopromisc:
            request["macvlan_flags"] = 1
        if port.broadcast_queue_length is not None:
            request["macvlan_bc_queue_len"] = port.broadcast_queue_length
        if port.broadcast_limit is not None:
            request["macvlan_bc_cutoff"] = port.broadcast_limit
        if port.source_macs:
            request["macvlan_macaddr_mode"] = "set"
            request["macvlan_macaddr_data"] = {
                "attrs": [("IFLA_MACVLAN_MACADDR", mac) for mac in port.source_macs]
            }
        if prove_mac_free:
            request["state"] = "up"
        with _told(f"making macvlan link {port.name} on {port.parent}"):
            self._netlink.link("add", **request)
        try:
            index = _index(port.name)
            with _told(f"marking link {port.name} as ours"):
                self._netlink.link("set", index=index, ifalias=port.alias, state="down")
        except BaseException:
            self.delete(port.name)
            raise

    def read_port(self, name: str) -> Port | None:
        try:
            with _told(f"reading link {name}"):
                message = self._netlink.link("get", index=_index(name))[0]
        except LinkFailed as failure:
            if failure.errno == errno.ENODEV:
                return None
            raise
        info = message.get_attr("IFLA_LINKINFO")
        data = info.get_attr("IFLA_INFO_DATA")
        lower = message.get_attr("IFLA_LINK")
        sources = data.get_attr("IFLA_MACVLAN_MACADDR_DATA")
        mode = data.get_attr("IFLA_MACVLAN_MODE")
        return Port(
            name=name,
            parent=socket.if_indextoname(lower),
            mode=mode if isinstance(mode, str) else str(mode),
            group=message.get_attr("IFLA_GROUP") or 0,
            alias=message.get_attr("IFLA_IFALIAS") or "",
            mtu=message.get_attr("IFLA_MTU"),
            mac=message.get_attr("IFLA_ADDRESS"),
            broadcast_queue_length=data.get_attr("IFLA_MACVLAN_BC_QUEUE_LEN"),
            broadcast_limit=data.get_attr("IFLA_MACVLAN_BC_CUTOFF"),
            nopromisc=data.get_attr("IFLA_MACVLAN_FLAGS") in (1, "nopromisc"),
            source_macs=tuple(sources.get_attrs("IFLA_MACVLAN_MACADDR")) if sources else (),
        )

    def add_vlan(self, name: str, lower: str, vlan_id: int, group: int, alias: str) -> None:
        with _told(f"making VLAN {vlan_id} on {lower} as {name}"):
            self._netlink.link(
                "add", ifname=name, kind="vlan", link=_index(lower), vlan_id=vlan_id, group=group
            )
        self._finish(name, alias)

    def add_dummy(self, name: str, group: int, alias: str, mtu: int | None = None) -> None:
        request: dict[str, Any] = {"ifname": name, "kind": "dummy", "group": group}
        if mtu is not None:
            request["mtu"] = mtu
        with _told(f"making dummy link {name}"):
            self._netlink.link("add", **request)
        self._finish(name, alias)

    def _finish(self, name: str, alias: str) -> None:
        try:
            _keep_host_off(name)
            with _told(f"bringing up {name}"):
                self._netlink.link("set", index=_index(name), ifalias=alias, state="up")
        except BaseException:
            self.delete(name)
            raise

    def set_up(self, name: str) -> None:
        with _told(f"bringing up {name}"):
            self._netlink.link("set", index=_index(name), state="up")

    def set_group(self, name: str, group: int) -> bool:
        return self._on_link(name, f"condemning link {name}", "set", group=group, state="down")

    def delete(self, name: str) -> bool:
        return self._on_link(name, f"removing link {name}", "del")

    def _on_link(self, name: str, doing: str, command: str, **request: Any) -> bool:
        try:
            with _told(doing):
                self._netlink.link(command, index=_index(name), **request)
        except LinkFailed as failure:
            if failure.errno == errno.ENODEV:
                return False
            raise
        return True

    def members_of_group(self, group: int) -> list[LinkFacts]:
        return [each for each in self.links() if each.group == group]

    def delete_group(self, group: int) -> None:
        with _told(f"removing the condemned links of group {group}"):
            self._netlink.link("del", group=group)

    def default_routes(self) -> list[DefaultRoute]:
        found = []
        with _told("reading default routes"):
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
        with _told(f"reading addresses of {name}"):
            return [
                ip_interface(f"{message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}")
                for message in self._netlink.get_addr(index=_index(name))
            ]

    def host_addresses(self) -> dict[IPAddress, str]:
        with _told("reading the host's addresses"):
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
                with open(f"/proc/sys/net/{family}/conf/{name}/{setting}", "w") as file:
                    file.write(value)
            except FileNotFoundError:
                if family == "ipv6":
                    continue
                raise LinkFailed(
                    f"setting {setting} of {name}: the link is not there", errno.ENODEV
                ) from None
            except OSError as error:
                raise LinkFailed(
                    f"setting {setting} of {name}: {os.strerror(error.errno or 0)}", error.errno or 0
                ) from None

    def add_address(self, name: str, address: IPInterface) -> None:
        request: dict[str, Any] = {"address": str(address.ip), "prefixlen": address.network.prefixlen}
        if address.version == 6:
            request["flags"] = _IFA_F_NODAD
        with _told(f"giving {name} the address {address}"):
            self._netlink.addr("replace", index=_index(name), **request)

    def delete_address(self, name: str, address: IPInterface) -> bool:
        try:
            with _told(f"taking the address {address} from {name}"):
                self._netlink.addr(
                    "del", index=_index(name), address=str(address.ip), prefixlen=address.network.prefixlen
                )
        except LinkFailed as failure:
            if failure.errno in (errno.ENODEV, errno.EADDRNOTAVAIL):
                return False
            raise
        return True

    def add_host_route(self, route: HostRoute) -> None:
        with _told(f"making the route to {route.destination} by {route.link}"):
            self._netlink.route("replace", **_route_request(route))

    def delete_host_route(self, route: HostRoute) -> bool:
        try:
            with _told(f"removing the route to {route.destination} by {route.link}"):
                self._netlink.route("del", **_route_request(route))
        except LinkFailed as failure:
            if failure.errno in (errno.ENODEV, errno.ESRCH):
                return False
            raise
        return True

    def host_routes(self, link: str, protocol: int) -> list[HostRoute]:
        try:
            index = _index(link)
        except LinkFailed:
            return []
        found = []
        with _told(f"reading the routes by {link}"):
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
        "oif": _index(route.link),
        "proto": route.protocol,
        "scope": "link" if route.destination.version == 4 else "universe",
    }
    if route.source is not None:
        request["prefsrc"] = str(route.source)
    return request


def _keep_host_off(name: str) -> None:
    """A parent that we make is for containers: the host is to gather no addresses and routes there."""
    with suppress(OSError), open(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", "w") as file:
        file.write("1")


def _facts(message: Any) -> LinkFacts:
    name = message.get_attr("IFLA_IFNAME")
    info = message.get_attr("IFLA_LINKINFO")
    data = info.get_attr("IFLA_INFO_DATA") if info else None
    kind = info.get_attr("IFLA_INFO_KIND") if info else None
    system = f"/sys/class/net/{name}"
    bridge = None
    if info and info.get_attr("IFLA_INFO_SLAVE_KIND") == "bridge":
        bridge = socket.if_indextoname(message.get_attr("IFLA_MASTER"))
    return LinkFacts(
        index=message["index"],
        name=name,
        kind=kind or "",
        mac=message.get_attr("IFLA_ADDRESS") or "",
        mtu=message.get_attr("IFLA_MTU"),
        up=bool(message["flags"] & 1),
        group=message.get_attr("IFLA_GROUP") or 0,
        alias=message.get_attr("IFLA_IFALIAS") or "",
        # With a namespace id the index means a link elsewhere: the far end of a veth pair.
        lower_index=0
        if message.get_attr("IFLA_LINK_NETNSID") is not None
        else message.get_attr("IFLA_LINK") or 0,
        vlan_id=data.get_attr("IFLA_VLAN_ID") if data is not None and kind == "vlan" else None,
        vlan_protocol=data.get_attr("IFLA_VLAN_PROTOCOL") if data is not None and kind == "vlan" else 0,
        is_wireless=os.path.isdir(f"{system}/wireless") or os.path.isdir(f"{system}/phy80211"),
        bridge=bridge,
        driver=_driver(system),
    )


def _driver(system: str) -> str:
    try:
        return os.path.basename(os.readlink(f"{system}/device/driver"))
    except OSError:
        return ""
