"""Engines that serve one module of tests after the other, since a start of one takes seconds."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

from tests.lab.engine import Engine
from tests.lab.lan import Addresses, Lan

Order = tuple[str, Addresses | None, int]
"""What a module asks for: the engine's version, who has which addresses on the LAN, and the docker host's NICs."""


@dataclass(frozen=True)
class Kept:
    """An engine on a LAN of its own, and the docker host's links when the engine had just been started."""

    engine: Engine
    undo: ExitStack
    links: dict[str, Any]

    def is_as_at_first(self) -> bool:
        """Whether the engine runs, and its host has the same NICs, up or down as before, and the same addresses."""
        return self.engine.running and links_of(self.engine.lan) == self.links


class KeptEngines:
    """One engine for each order, from the first module with that order to the end of the ``with`` block."""

    def __init__(self) -> None:
        """Begin without engines."""
        self._kept: dict[Order, Kept] = {}

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the engines and their LANs."""
        with ExitStack() as stack:
            for each in self._kept.values():
                stack.push(each.undo)

    def engine(self, order: Order) -> Engine:
        """Return a running engine with the image ``busybox`` on a LAN like a new one: the kept one, if it is fit."""
        kept = self._kept.get(order)
        if kept is not None and not kept.is_as_at_first():
            self.discard(order)
            kept = None
        if kept is None:
            kept = self._kept[order] = _start(*order)
        return kept.engine

    def discard(self, order: Order) -> None:
        """End an engine: the next module gets another one."""
        self._kept.pop(order).undo.close()


def _start(version: str, addresses: Addresses | None, nics: int) -> Kept:
    with ExitStack() as undo:
        lan = undo.enter_context(Lan(addresses, nics=nics))
        engine = undo.enter_context(Engine(lan, version))
        engine.load_busybox()
        links = links_of(lan)
        return Kept(engine, undo.pop_all(), links)


def links_of(lan: Lan) -> dict[str, Any]:
    """Return the MAC, the flags, and the addresses of global scope of each link of the docker host."""
    return {
        name: (
            link.get("address"),
            link["flags"],
            sorted(each["local"] for each in link["addr_info"] if each["scope"] == "global"),
        )
        for name, link in lan.host_links().items()
    }
