"""A kernel in memory, for tests without root. It behaves as Linux does in the contract tests."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import evolve

from ..addresses import IPAddress, IPInterface
from ..errors import LinkError
from ..netlink.kernel import ETH_P_8021Q, DefaultRoute, HostRoute, LinkFacts, MacvlanLink, NetnsLink

_EXISTS = "a link of that name exists already"


def nic(name: str, index: int, **facts: Any) -> LinkFacts:
    """A NIC that is up. With a ``vlan_id`` it is an 802.1Q VLAN."""
    if "vlan_id" in facts:
        facts.setdefault("vlan_protocol", ETH_P_8021Q)
    plain = LinkFacts(index=index, name=name, kind="", mac=f"02:00:00:00:00:{index:02x}", mtu=1500, up=True)
    return evolve(plain, **facts)


class FakeKernel:
    """
    :class:`~macvlan_twisted.netlink.kernel.Kernel` in memory.

    Its contract tests are in tests/contracts/kernel_contract.py.

    :param links: the links at the start, besides ``lo``.
    """

    def __init__(
        self,
        links: Iterable[LinkFacts] = (),
        default_routes: Iterable[DefaultRoute] = (),
        addresses: dict[str, list[IPInterface]] | None = None,
    ) -> None:
        self._lock = threading.RLock()
        self._links = {"lo": nic("lo", 1, mac="00:00:00:00:00:00", mtu=65536)}
        self._links.update((link.name, link) for link in links)
        self._ports: dict[str, MacvlanLink] = {}
        self._away: dict[str, LinkFacts] = {}
        self._default_routes = list(default_routes)
        self._addresses = dict(addresses or {})
        self.configured: dict[str, dict[str, str]] = {}
        """The sysctls of each link that were written."""
        self._routes: dict[tuple[IPAddress, str, int], HostRoute] = {}
        self._last_index = max(link.index for link in self._links.values())

    def prepare(self) -> None:
        """There is nothing to prepare."""

    def find(self, name: str) -> LinkFacts | None:
        with self._lock:
            return self._links.get(name)

    def exists(self, name: str) -> bool:
        with self._lock:
            return name in self._links

    def names(self) -> list[str]:
        with self._lock:
            return list(self._links)

    def links_elsewhere(self) -> list[NetnsLink]:
        with self._lock:
            return [NetnsLink("eth0", link.mac, link.alias, link.up) for link in self._away.values()]

    def links(self, complete: bool = False) -> list[LinkFacts]:
        with self._lock:
            return list(self._links.values())

    def _fail(self, doing: str, number: int) -> LinkError:
        reason = _EXISTS if number == errno.EEXIST else os.strerror(number)
        return LinkError(f"{doing}: {reason}", number)

    def _need(self, name: str) -> LinkFacts:
        link = self._links.get(name)
        if link is None:
            raise LinkError(f"link {name} does not exist", errno.ENODEV)
        return link

    def _next_index(self) -> int:
        self._last_index += 1
        return self._last_index

    def add_macvlan(self, port: MacvlanLink, prove_mac_free: bool = False) -> None:
        doing = f"cannot create macvlan link {port.name} on {port.parent}"
        with self._lock:
            parent = self._need(port.parent)
            if port.name in self._links:
                raise self._fail(doing, errno.EEXIST)
            if len(port.name.encode()) > 15:
                raise self._fail(doing, errno.ERANGE)
            siblings = [each for each in self._ports.values() if each.parent == port.parent]
            if any("passthru" in (each.mode, port.mode) for each in siblings):
                raise self._fail(doing, errno.EINVAL)
            if port.mtu is not None and port.mtu > parent.mtu:
                raise self._fail(doing, errno.EINVAL)
            if port.mac is not None and int(port.mac[:2], 16) & 1:  # multicast
                raise self._fail(doing, errno.EADDRNOTAVAIL)
            facts = [self._links.get(each.name) or self._away[each.name] for each in siblings]
            macs = {each.mac for each in facts if each.up} | {parent.mac}
            if prove_mac_free and port.mac in macs:
                raise self._fail(doing, errno.EADDRINUSE)
            index = self._next_index()
            mac = port.mac or (parent.mac if port.mode == "passthru" else f"02:fa:00:00:00:{index % 256:02x}")
            mtu = port.mtu or parent.mtu
            self._links[port.name] = LinkFacts(
                index=index,
                name=port.name,
                kind="macvlan",
                mac=mac,
                mtu=mtu,
                up=False,
                group=port.group,
                alias=port.alias,
                lower_index=parent.index,
            )
            self._ports[port.name] = evolve(port, mtu=mtu, mac=mac)

    def read_macvlan(self, name: str) -> MacvlanLink | None:
        with self._lock:
            return self._ports.get(name) if name in self._links else None

    def _add(self, name: str, kind: str, **facts: Any) -> None:
        if name in self._links:
            raise self._fail(f"cannot create {kind} {name}", errno.EEXIST)
        index = self._next_index()
        plain = nic(name, index, kind=kind, mac=f"02:fb:00:00:00:{index % 256:02x}")
        self._links[name] = evolve(plain, **facts)

    def add_vlan(self, name: str, lower: str, vlan_id: int, group: int, alias: str) -> None:
        with self._lock:
            nic_below = self._need(lower)
            self._add(
                name,
                "vlan",
                mac=nic_below.mac,
                mtu=nic_below.mtu,
                group=group,
                alias=alias,
                lower_index=nic_below.index,
                vlan_id=vlan_id,
                vlan_protocol=ETH_P_8021Q,
            )

    def add_dummy(self, name: str, group: int, alias: str, mtu: int | None = None) -> None:
        with self._lock:
            self._add(name, "dummy", group=group, alias=alias, mtu=mtu or 1500)

    def set_up(self, name: str) -> None:
        with self._lock:
            self._links[name] = evolve(self._need(name), up=True)

    def set_group(self, name: str, group: int) -> bool:
        with self._lock:
            if name not in self._links:
                return False
            self._links[name] = evolve(self._links[name], group=group, up=False)
            return True

    def delete(self, name: str) -> bool:
        with self._lock:
            link = self._links.pop(name, None)
            self._ports.pop(name, None)
            self._addresses.pop(name, None)
            self.configured.pop(name, None)
            self._routes = {key: route for key, route in self._routes.items() if route.link != name}
            if link is None:
                return False
            for upper in [each.name for each in self._links.values() if each.lower_index == link.index]:
                self.delete(upper)
            return True

    def members_of_group(self, group: int) -> list[LinkFacts]:
        with self._lock:
            return [link for link in self._links.values() if link.group == group]

    def delete_group(self, group: int) -> None:
        with self._lock:
            members = self.members_of_group(group)
            doing = f"cannot remove the links of group {group} that are marked for removal"
            if group == 0:
                raise self._fail(doing, errno.EPERM)
            if not members:
                raise self._fail(doing, errno.ENODEV)
            if any(link.kind == "" for link in members):  # the kernel deletes none if one is a NIC or lo
                raise self._fail(doing, errno.EOPNOTSUPP)
            for link in members:
                self.delete(link.name)

    def close(self) -> None:
        """There is nothing to close."""

    def default_routes(self) -> list[DefaultRoute]:
        return sorted(self._default_routes, key=lambda route: route.metric)

    def addresses_of(self, name: str) -> list[IPInterface]:
        return list(self._addresses.get(name, ()))

    def host_addresses(self) -> dict[IPAddress, str]:
        with self._lock:
            return {each.ip: name for name, addresses in self._addresses.items() for each in addresses}

    def configure(self, name: str, values: Mapping[str, str]) -> None:
        with self._lock:
            self._need(name)
            self.configured.setdefault(name, {}).update(values)

    def add_address(self, name: str, address: IPInterface) -> None:
        with self._lock:
            self._need(name)
            if address not in self._addresses.setdefault(name, []):
                self._addresses[name].append(address)

    def delete_address(self, name: str, address: IPInterface) -> bool:
        with self._lock:
            if address not in self._addresses.get(name, []):
                return False
            self._addresses[name].remove(address)
            for key, route in list(self._routes.items()):
                if route.source == address.ip:
                    del self._routes[key]
                    if address.version == 6:  # an IPv6 route only loses its source
                        self._routes[key] = evolve(route, source=None)
            return True

    def add_host_route(self, route: HostRoute) -> None:
        doing = f"cannot add the route to {route.destination} by {route.link}"
        with self._lock:
            if not self._need(route.link).up:
                raise self._fail(doing, errno.ENETDOWN)
            if route.source is not None and route.source not in self.host_addresses():
                raise self._fail(doing, errno.EINVAL)
            for each in self._routes.values():
                if each.destination == route.destination and (each.link, each.protocol) != (
                    route.link,
                    route.protocol,
                ):
                    raise LinkError(
                        f"{doing}: the host has another route to that address already", errno.EEXIST
                    )
            self._routes[route.destination, route.link, route.protocol] = route

    def delete_host_route(self, route: HostRoute) -> bool:
        with self._lock:
            key = (route.destination, route.link, route.protocol)
            present = self._routes.get(key)
            if present is None or (route.destination.version == 4 and present.source != route.source):
                return False
            del self._routes[key]
            return True

    def host_routes(self, link: str, protocol: int) -> list[HostRoute]:
        with self._lock:
            return [each for each in self._routes.values() if (each.link, each.protocol) == (link, protocol)]

    # For tests: what the engine, users and containers do to links.

    def move_away(self, name: str, up: bool = False) -> LinkFacts:
        """Move a link to a container's namespace, as the engine does after Join."""
        with self._lock:
            link = self._links.pop(name)
            self._away[name] = evolve(link, up=up)
            return link

    def move_back(self, link: LinkFacts) -> None:
        """Move a link back to the host's namespace and set it down, as the engine does after Leave."""
        with self._lock:
            self._away.pop(link.name, None)
            self._links[link.name] = evolve(link, up=False)

    def rename(self, *names: tuple[str, str]) -> None:
        """Rename links at once. Each of *names* is a pair of old and new name. Upper links follow."""
        with self._lock:
            links = {new: self._links.pop(old) for old, new in names}
            self._links.update((new, evolve(link, name=new)) for new, link in links.items())
            renamed = dict(names)
            self._ports = {
                name: evolve(port, parent=renamed.get(port.parent, port.parent))
                for name, port in self._ports.items()
            }

    def away(self, name: str) -> LinkFacts:
        """The present facts of a link in a container's namespace."""
        with self._lock:
            return self._away[name]

    def change_away(self, name: str, **facts: Any) -> None:
        """Change a link in a container's namespace, as root in the container can."""
        with self._lock:
            self._away[name] = evolve(self._away[name], **facts)

    def destroy_away(self, name: str) -> None:
        """Delete a link together with the container's namespace."""
        with self._lock:
            del self._away[name]
            self._ports.pop(name, None)

    def put(self, link: LinkFacts) -> None:
        """Add or replace a foreign link."""
        with self._lock:
            self._links[link.name] = link
