"""What a neighbour that floods the LAN with ARP or neighbour discovery costs."""

import time
from collections import defaultdict
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from random import Random

from tests.benchmark.arithmetic import percentile, spread
from tests.benchmark.callers import ask
from tests.benchmark.engine import OURS, Side
from tests.benchmark.features import CALLS, RawNetwork
from tests.benchmark.part import Cell, Measurement, Part, at_most
from tests.benchmark.processes import processor_seconds
from tests.lab.flood import Flood
from tests.lab.frames import NOBODY, REQUEST, arp, arp_announcement, solicitation
from tests.lab.lan import Lan
from tests.lab.plugin import Plugin

RATE = 20_000
"""Frames a second."""
_ARGUMENTS = ("--host-interface", "eth1", "--docker-host", "none")
PROBED = Side(
    "probed", "conflict detection", "eth1", "10.5.0.0/16",
    ipam=OURS, ipam_options=(("conflict_detection", "on"), ("parent", "eth1")),
)  # fmt: skip
NOT_PROBED = Side(
    "plain", "without", "eth1", "10.6.0.0/16",
    ipam=OURS, ipam_options=(("conflict_detection", "off"), ("parent", "eth1")),
)  # fmt: skip
SUBNET_6 = "fd05::/64"
ASSIGNED = "10.5.77.77"


def _mac(random: Random) -> str:
    return bytes([2, *random.randbytes(5)]).hex(":")


def _requests(random: Random, senders: Sequence[str], number: int) -> list[bytes]:
    """ARP requests; no sender and no target is among the addresses that are given to containers."""
    macs = {sender: _mac(random) for sender in senders}
    asked = [random.choice(senders) for _ in range(number)]
    return [
        arp(REQUEST, (macs[each], each), (NOBODY, f"10.5.255.{random.randrange(1, 255)}")) for each in asked
    ]


def floods() -> dict[str, list[bytes]]:
    """Return what is sent, by name."""
    random = Random(7)
    few = [f"10.5.200.{number}" for number in range(1, 9)]
    many = [str(IPv4Address("10.5.128.0") + random.randrange(1 << 14)) for _ in range(20_000)]
    others = [f"172.16.0.{number}" for number in range(1, 101)]
    six = [str(IPv6Address("fd05::1:0:0:0") + random.getrandbits(48)) for _ in range(20_000)]
    return {
        "ARP of other subnets": _requests(random, others, 2000),
        "ARP of the subnet, 8 senders": _requests(random, few, 2000),
        "ARP of the subnet, many senders": _requests(random, many, 20_000),
        "neighbour solicitations, many senders": [
            solicitation(_mac(random), f"fd05::2:0:0:{number % 9}", sender)
            for number, sender in enumerate(six)
        ],
        "ARP for a container's address": [arp_announcement("02:00:00:00:00:77", ASSIGNED)],
    }


class _Service:
    """The service, and the two networks that share its parent."""

    def __init__(self, plugin: Plugin) -> None:
        self.pid = plugin.service.pid
        path = plugin.socket
        self._probed, self._plain = RawNetwork(path, PROBED), RawNetwork(path, NOT_PROBED)
        body = {
            "AddressSpace": "MacvlanTwistedLocal", "Pool": SUBNET_6, "SubPool": "", "V6": True,
            "Options": dict(PROBED.ipam_options),
        }  # fmt: skip
        ask(path, "IpamDriver.RequestPool", body)
        self._probed.assign(ASSIGNED)

    def share(self, seconds: float) -> float:
        """Return which share of a processor it takes, in percent."""
        began, before = time.monotonic(), processor_seconds(self.pid)
        time.sleep(seconds)
        return 100 * (processor_seconds(self.pid) - before) / (time.monotonic() - began)

    def latencies(self, number: int) -> dict[str, list[float]]:
        """Return milliseconds of calls, by name."""
        found: dict[str, list[float]] = defaultdict(list)
        for _ in range(number):
            for name, network in (("probed", self._probed), ("plain", self._plain)):

                def keep(method: str, seconds: float, name: str = name) -> None:
                    found[f"{name} {method}"].append(seconds * 1000)

                network.live(keep)
            time.sleep(0.1)
        return found


COLUMNS = (
    "flood", "frames a second", "% of a processor",
    *(f"{method.partition('.')[2]} {what} ms" for method in CALLS[:2] for what in ("median", "95 %")),
    *(f"without detection: {method.partition('.')[2]} median ms" for method in CALLS[:2]),
)  # fmt: skip


def run(measurement: Measurement) -> None:
    """Measure each flood, after the quiet LAN."""
    rows: list[list[Cell]] = []
    with Lan() as lan, Plugin(lan, arguments=_ARGUMENTS, preloaded=False) as plugin:
        service = _Service(plugin)
        measurement.rest(2)  # what is found out ahead of need is there by then
        number = measurement.number(40, 3)
        for what, frames in {"none": list[bytes](), **floods()}.items():
            with Flood(lan, "neighbour", frames, rate=RATE if frames else 0, seconds=300) as flood:
                measurement.rest(1)
                share, found = service.share(measurement.seconds), service.latencies(number)
            cells: list[Cell] = [what, round(flood.sent), share]
            for method in CALLS[:2]:
                taken = found[f"probed {method}"]
                cells += [spread(taken).median, percentile(taken, 95)]
            cells += [spread(found[f"plain {method}"]).median for method in CALLS[:2]]
            rows.append(cells)
            measurement.say(f"{what}: {share:.1f} %, RequestAddress {cells[3]:.1f} to {cells[4]:.1f} ms")
            measurement.rest(2)
    most = max(float(row[2]) for row in rows[1:])
    measurement.figure("processor under a flood", most, "%", at_most(10))
    slowest = max(float(row[4]) for row in rows[1:])
    measurement.figure("RequestAddress under a flood, 95 % within", slowest, "ms", at_most(100))
    measurement.table("floods", f"A neighbour that sends {RATE:,} frames a second", COLUMNS, rows)


PART = Part("flood", "what a neighbour that floods the LAN costs", run)
