"""
The kernel by rtnetlink: pyroute2 behind :class:`~macvlan_twisted.netlink.kernel.Kernel`.

Every function is plain and blocking.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

from ..errors import LinkError
from ..failpoints import Failpoint
from .codec import (
    IFLA_ADDRESS,
    IFLA_GROUP,
    IFLA_IFALIAS,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_INFO_SLAVE_KIND,
    IFLA_LINK,
    IFLA_LINK_NETNSID,
    IFLA_LINKINFO,
    IFLA_MASTER,
    IFLA_MTU,
    IFLA_VLAN_ID,
    IFLA_VLAN_PROTOCOL,
    LINK,
    RTM_GETLINK,
    attributes_in,
    link_request,
    number_of,
    text_of,
)
from .host_addressing import HostAddressing, name_of
from .kernel import LinkFacts, MacvlanLink, Marked, NetnsLink
from .netns_links import links_elsewhere
from .sockets import index_of, link_errors

# Remedy of these errors: see the reason in the message.

_MAKE_PORT = Failpoint(
    "netlink.macvlan.make", "a macvlan link is made, with its name, parent, mode, MAC and group, all at once"
)
_MARK_PORT = Failpoint(
    "netlink.macvlan.mark", "a macvlan link that was just made is marked as ours by its alias"
)
_MAKE_VLAN = Failpoint("netlink.vlan.make", "a VLAN link is made")
_MAKE_DUMMY = Failpoint("netlink.dummy.make", "a dummy link is made, for an internal network")
_KEEP_HOST_OFF = Failpoint("netlink.parent.quieten", "IPv6 is switched off on a VLAN or dummy link of ours")
_MARK_PARENT = Failpoint(
    "netlink.parent.mark", "a VLAN or dummy link is marked as ours by its alias, and brought up"
)
_BRING_UP = Failpoint("netlink.link.raise", "our own link on a parent is brought up")
_RETIRE = Failpoint(
    "netlink.link.retire", "a link is taken out of use: down, and in a group of those that are to go"
)
_REMOVE = Failpoint("netlink.link.remove", "one link is removed")
_REMOVE_GROUP = Failpoint("netlink.group.remove", "the retired links of one group are removed together")


_LISTS_ALL = (6, 9)
"""
The first kernel that lists links by their indices (net/core/rtnetlink.c, rtnl_dump_ifinfo). Former ones count the links in
a bucket of a hash table, so a link that is deleted from it meanwhile makes them skip another one.
"""


class NetlinkKernel(HostAddressing):
    """
    Links of the network namespace in which this process runs.

    :param release: the kernel's, such as ``6.1.0-38-amd64``.
    """

    def __init__(self, release: str = os.uname().release) -> None:
        super().__init__()
        self._lists_all = _version(release) >= _LISTS_ALL

    def prepare(self) -> None:
        import_module("macvlan_twisted.netlink.pyroute")

    def find(self, name: str) -> LinkFacts | None:
        try:
            index = index_of(name)
            with link_errors(f"cannot read link {name}"):
                return _facts(self._raw.get(RTM_GETLINK, link_request(index)))
        except LinkError as failure:
            if failure.errno == errno.ENODEV:
                return None
            raise

    def exists(self, name: str) -> bool:
        try:
            index_of(name)
        except LinkError as failure:
            if failure.errno == errno.ENODEV:
                return False
            raise
        return True

    def names(self) -> list[str]:
        return [name for _, name in socket.if_nameindex()]

    def links_elsewhere(self) -> list[NetnsLink]:
        return links_elsewhere()

    def links(self, complete: bool = False) -> list[LinkFacts]:
        with link_errors("cannot list links"):
            return [_facts(reply) for reply in self._listed(complete)]

    def _listed(self, complete: bool, holding: bytes = b"") -> list[bytes]:
        """Where links come and go all the time, nearly every list of a few hundred is marked as interrupted."""
        if self._lists_all:
            return self._raw.dump(RTM_GETLINK, link_request(), holding, attempts=1)
        return self._raw.dump(RTM_GETLINK, link_request(), holding, refuse_interrupted=complete)

    def add_macvlan(self, port: MacvlanLink, prove_mac_free: bool = False) -> None:
        request = port_request(port, index_of(port.parent), prove_mac_free)
        with link_errors(f"cannot create macvlan link {port.name} on {port.parent}"), _MAKE_PORT:
            self._templated.add_link(port.name, port.mac, **request)
        try:
            index = index_of(port.name)
            with link_errors(f"cannot mark link {port.name} as the plugin's"), _MARK_PORT:
                self._templated.mark(index, port.alias)
        except BaseException:
            self.delete(port.name)
            raise

    def read_macvlan(self, name: str) -> MacvlanLink | None:
        try:
            with link_errors(f"cannot read link {name}"):
                message = self._netlink.link("get", index=index_of(name))[0]
        except LinkError as failure:
            if failure.errno == errno.ENODEV:
                return None
            raise
        info = message.get_attr("IFLA_LINKINFO")
        data = info.get_attr("IFLA_INFO_DATA")
        lower = message.get_attr("IFLA_LINK")
        sources = data.get_attr("IFLA_MACVLAN_MACADDR_DATA")
        mode = data.get_attr("IFLA_MACVLAN_MODE")
        return MacvlanLink(
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
        with link_errors(f"cannot create VLAN {vlan_id} on {lower} as {name}"), _MAKE_VLAN:
            self._netlink.link(
                "add", ifname=name, kind="vlan", link=index_of(lower), vlan_id=vlan_id, group=group
            )
        self._finish(name, alias)

    def add_dummy(self, name: str, group: int, alias: str, mtu: int | None = None) -> None:
        request: dict[str, Any] = {"ifname": name, "kind": "dummy", "group": group}
        if mtu is not None:
            request["mtu"] = mtu
        with link_errors(f"cannot create dummy link {name}"), _MAKE_DUMMY:
            self._netlink.link("add", **request)
        self._finish(name, alias)

    def _finish(self, name: str, alias: str) -> None:
        try:
            _keep_host_off(name)
            with link_errors(f"cannot bring up link {name}"), _MARK_PARENT:
                self._netlink.link("set", index=index_of(name), ifalias=alias, state="up")
        except BaseException:
            self.delete(name)
            raise

    def set_up(self, name: str) -> None:
        with link_errors(f"cannot bring up link {name}"), _BRING_UP:
            self._netlink.link("set", index=index_of(name), state="up")

    def set_group(self, name: str, group: int) -> bool:
        try:
            with link_errors(f"cannot mark link {name} for removal"), _RETIRE:
                self._templated.retire(index_of(name), group)
        except LinkError as failure:
            return _unless_gone(failure)
        return True

    def delete(self, name: str) -> bool:
        try:
            with link_errors(f"cannot remove link {name}"), _REMOVE:
                self._netlink.link("del", index=index_of(name))
        except LinkError as failure:
            return _unless_gone(failure)
        return True

    def members_of_group(self, group: int) -> Sequence[Marked]:
        number = group.to_bytes(4, sys.byteorder)
        with link_errors(f"cannot list the links of group {group}"):
            replies = self._listed(complete=True, holding=number)
            return [link for link in map(_facts, replies) if link.group == group]

    def delete_group(self, group: int) -> None:
        with (
            link_errors(f"cannot remove the links of group {group} that are marked for removal"),
            _REMOVE_GROUP,
        ):
            self._templated.remove_group(group)


def _version(release: str) -> tuple[int, int]:
    major, minor = re.findall(r"[0-9]+", release)[:2]
    return int(major), int(minor)


def port_request(port: MacvlanLink, parent_index: int, up: bool) -> dict[str, Any]:
    """The arguments of ``IPRoute.link("add", ...)`` for a macvlan link, without its name and its MAC."""
    request: dict[str, Any] = {
        "kind": "macvlan",
        "link": parent_index,
        "macvlan_mode": port.mode,
        "group": port.group,
    }
    if port.mtu is not None:
        request["mtu"] = port.mtu
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
    if up:
        request["state"] = "up"
    return request


def _unless_gone(failure: LinkError) -> bool:
    """:return: ``False`` if the link is not there; anything else is raised."""
    if failure.errno != errno.ENODEV:
        raise failure
    return False


def _keep_host_off(name: str) -> None:
    """A parent that we make is for containers: the host must not acquire IPv6 addresses and routes on it."""
    path = f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6"
    with suppress(OSError), _KEEP_HOST_OFF, open(path, "w") as file:
        file.write("1")


_IFF_UP = 0x1  # net/if.h
_OF_A_LINK = frozenset(
    {
        IFLA_ADDRESS,
        IFLA_GROUP,
        IFLA_IFALIAS,
        IFLA_IFNAME,
        IFLA_LINK,
        IFLA_LINK_NETNSID,
        IFLA_LINKINFO,
        IFLA_MASTER,
        IFLA_MTU,
    }
)
_OF_A_KIND = (IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND)
_OF_A_VLAN = (IFLA_VLAN_ID, IFLA_VLAN_PROTOCOL)
_WITHOUT_DEVICE = frozenset({"bridge", "dummy", "macvlan", "veth", "vlan"})
"""Kinds of links that are never NICs, so that sysfs need not be asked. It would take longer than all the rest."""


def _facts(message: bytes) -> LinkFacts:
    _, _, index, flags, _ = LINK.unpack_from(message)
    found = attributes_in(message, _OF_A_LINK)
    name = text_of(found.get(IFLA_IFNAME, b""))
    info = attributes_in(found.get(IFLA_LINKINFO, b""), _OF_A_KIND, 0)
    kind = text_of(info.get(IFLA_INFO_KIND, b""))
    vlan = attributes_in(info.get(IFLA_INFO_DATA, b"") if kind == "vlan" else b"", _OF_A_VLAN, 0)
    bridge = None
    if text_of(info.get(IFLA_INFO_SLAVE_KIND, b"")) == "bridge":
        bridge = name_of(number_of(found[IFLA_MASTER])) or None
    system = f"/sys/class/net/{name}"
    may_be_nic = kind not in _WITHOUT_DEVICE
    return LinkFacts(
        index=index,
        name=name,
        kind=kind,
        mac=found.get(IFLA_ADDRESS, b"").hex(":"),
        mtu=number_of(found.get(IFLA_MTU, b"")),
        up=bool(flags & _IFF_UP),
        group=number_of(found.get(IFLA_GROUP, b"")),
        alias=text_of(found.get(IFLA_IFALIAS, b"")),
        # With IFLA_LINK_NETNSID the index is one of another namespace: the peer of a veth pair.
        lower_index=0 if IFLA_LINK_NETNSID in found else number_of(found.get(IFLA_LINK, b"")),
        vlan_id=number_of(vlan[IFLA_VLAN_ID]) if IFLA_VLAN_ID in vlan else None,
        vlan_protocol=int.from_bytes(vlan.get(IFLA_VLAN_PROTOCOL, b""), "big"),
        is_wireless=may_be_nic
        and (os.path.isdir(f"{system}/wireless") or os.path.isdir(f"{system}/phy80211")),
        bridge=bridge,
        driver=_driver(system) if may_be_nic else "",
    )


def _driver(system: str) -> str:
    try:
        return os.path.basename(os.readlink(f"{system}/device/driver"))
    except OSError:
        return ""
