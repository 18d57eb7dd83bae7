"""Bodies and requests that no engine sends, derived from those that engines send."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

RECORDINGS = Path(__file__).resolve().parents[1] / "conversations" / "recordings"
LIMIT = 1 << 20
"""The most bytes that a body may have."""
DEEP = 100_000

WORDS = """
    / .. ../../etc/passwd a/b a.b xxxxxxxxxxxxxxx xxxxxxxxxxxxxxxx {} {0.__class__} {log_source} %s %n $(id)
    `id` 0 -1 1e9 0x10 1_000 NaN true false null None yes eth1 eth2 lo eth1.20 eth1.0 eth1.4095 eth1.20.30.40
    eth9 mvt000000000000 all default bridge private vepa passthru source BRIDGE on off strict name random
    address 0.0.0.0 0.0.0.0/0 :: ::/0 10.1.0.0/16 10.1.0.0/0 10.1.0.7 10.1.0.7/16 10.1.0.7/33 10.1.0.0/-1
    10.1.0.0/255.255.0.0 10.01.0.1 256.1.1.1 1.2.3 127.0.0.1/8 224.0.0.1/4 255.255.255.255/32 10.1.0.0/31
    10.1.0.0/32 fd00::/64 fd00::7/64 fd00::/129 fe80::1%eth1 ::ffff:10.1.0.1 10.0.0.0/1 1.0.0.0/8
    192.168.77.0/24 192.168.77.1 10.1.0.0/16/16 /24 02:00:00:00:00:77 01:00:00:00:00:77 00:00:00:00:00:00
    ff:ff:ff:ff:ff:ff 02-00-00-00-00-77 02:0:0 MacvlanTwistedLocal MacvlanTwistedGlobal LocalDefault
    com.docker.network.gateway null zzzzzzzzzzzzzzzzzzzzzzzzz /var/run/docker/netns/1 /proc/1/ns/net
"""
STRINGS = (
    *("", " ", "\n", "\x00", "\t", "\x1b[2J", "\x7f", "\u2028", "\ud800", "\udfff", "\ufeff"),
    *("é", "𝟙", "１２"),
    *("a\nb", "a\r\nb", "x" * 200, "x" * 5000, "'; DROP TABLE networks; --", "\\", '"', " 7 ", "9" * 5000),
    *("a" * 64, "b" * 64, "0" * 64, "f" * 128, "f" * 129),
    *WORDS.split(),
)
NUMBERS: tuple[Any, ...] = (
    *(0, -1, 1, 6, 255, 4096, 1 << 31, 1 << 63, 1 << 64, -(1 << 63), 10**400, 0.5, -0.0, 1e308),
    *(float("nan"), float("inf"), float("-inf")),
)
KNOWN_KEYS = """
    NetworkID EndpointID PoolID Address Options Interface Pool SubPool IPv4Data V6 AddressSpace Gateway
    AuxAddresses SandboxKey MacAddress AddressIPv6 RequestAddressType com.docker.network.generic
    com.docker.network.internal com.docker.network.endpoint.name parent mode mtu vlan_id host_access
    host_address conflict_detection identity dhcp source_macs nopromisc bclim allow_parent_mac_change announce
    macvlan_mode __class__
"""
KEYS = (*("", "a\nb", "x" * 200), *KNOWN_KEYS.split())
IDENTIFIERS = ("NetworkID", "EndpointID", "PoolID")
RAW_VALUES = (
    *("1" * 4299, "1" * 5000, "\u2028", '"\\ud800"', '"\\ud83d\\ude00"', '"\\u0000"'),
    *("NaN", "Infinity", "-Infinity", "1e999999", "-1e999999", "0" * 10, "'x'", "undefined", "{}", "[]"),
)


def recorded() -> list[tuple[str, Any]]:
    """Each call in the recordings: its method and its body, where that is an object."""
    found: dict[str, tuple[str, Any]] = {}
    for path in sorted(RECORDINGS.rglob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if "call" in row:
                body = json.loads(row["body"]) if row["body"] else {}
                # A few of each shape are enough.
                found.setdefault(f"{row['call']} {sorted(body)} {len(row['body']) % 7}", (row["call"], body))
    return [(method, _at_home(body)) for method, body in found.values()]


def _at_home(value: Any) -> Any:
    """Replace parents and address spaces of the recording by those that exist here."""
    if isinstance(value, dict):
        return {key: "eth1" if key == "parent" else _at_home(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_at_home(each) for each in value]
    return "MacvlanTwistedLocal" if value == "reclocal" else value


class Mutations:
    """Draws them."""

    def __init__(self, random: Random) -> None:
        """Read the recordings."""
        self._random = random
        self._calls = recorded()
        self.methods = sorted({method for method, _ in self._calls} | {"NetworkDriver.GwAllocCheck"})
        self.known: dict[str, list[str]] = {}
        """Identifiers that exist, for later bodies."""
        self.forget()

    def forget(self) -> None:
        """Nothing is known of what there is."""
        self.known = {"NetworkID": ["a" * 64, "b" * 64], "EndpointID": ["c" * 64], "PoolID": [""]}

    def body(self) -> tuple[str, bytes]:
        """A method, and a body for it."""
        random = self._random
        method, body = random.choice(self._calls)
        body = copy.deepcopy(body)
        for name in IDENTIFIERS:
            if name in body and random.random() < 0.8:
                body[name] = random.choice(self.known[name])
        if random.random() < 0.03:
            method = random.choice(self.methods)
        for _ in range(random.choice((0, 1, 1, 1, 2, 3, 6))):
            body = self._changed(body)
        raw = self._encoded(body)
        for _ in range(random.choice((0, 0, 0, 0, 1, 2))):
            raw = self._garbled(raw)
        if random.random() < 0.002:
            raw = self._huge(raw)
        return method, raw

    def value(self) -> Any:
        """Anything."""
        random = self._random
        kind = random.randrange(12)
        if kind < 6:
            return random.choice(STRINGS)
        if kind < 8:
            return random.choice(NUMBERS)
        if kind == 8:
            return random.choice((None, True, False))
        if kind == 9:
            return [self.value() for _ in range(random.choice((0, 1, 3)))]
        if kind == 10:
            return {random.choice(KEYS): self.value() for _ in range(random.choice((0, 1, 3)))}
        return copy.deepcopy(random.choice(self._calls)[1])

    def _changed(self, body: Any) -> Any:
        """Change one thing somewhere within."""
        random = self._random
        if not isinstance(body, (dict, list)) or not body:
            return self.value() if random.random() < 0.3 else {random.choice(KEYS): self.value()}
        if random.random() < 0.03:
            return random.choice(([body], self.value()))
        keys: list[Any] = list(body) if isinstance(body, dict) else list(range(len(body)))
        key = random.choice(keys)
        if isinstance(body[key], (dict, list)) and random.random() < 0.6:
            body[key] = self._changed(body[key])
            return body
        what = random.random()
        if what < 0.5:
            body[key] = self.value()
        elif what < 0.65:
            del body[key]
        elif isinstance(body, dict):
            body[random.choice(KEYS)] = self.value()
        else:
            body.append(self.value())
        return body

    def _encoded(self, body: Any) -> bytes:
        text = json.dumps(body, ensure_ascii=self._random.random() < 0.8)
        return text.encode("utf-8", "surrogatepass") + b"\n"

    def _garbled(self, raw: bytes) -> bytes:  # noqa: PLR0911 - one for each way
        """Do to the bytes what JSON would not allow."""
        random = self._random
        at = random.randrange(len(raw) + 1)
        choice = random.randrange(14)
        if choice == 0:
            return raw[:at]
        if choice == 1:
            return raw[:at] + bytes([random.randrange(256)]) + raw[at:]
        if choice == 2:
            return (
                raw[:at]
                + random.choice((b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"))
                + raw[at + 1 :]
            )
        if choice == 3:
            return b"\xef\xbb\xbf" + raw
        if choice == 4:
            return raw.decode("utf-8", "replace").encode(random.choice(("utf-16", "utf-16-le", "utf-32")))
        if choice == 5:
            return raw + random.choice((raw, b"{}", b"x", b"\x00", b" " * 100))
        if choice == 6:
            return b""
        if choice == 7:
            return random.choice((b" ", b"\n", b"null", b"[]", b"0", b'""', b"true", b"{", b"[" * 500, b"-"))
        if choice == 8:
            word = random.choice(RAW_VALUES).encode()
            return raw.replace(random.choice((b'""', b"null", b"{}", b"[]", b"true")), word, 1)
        if choice == 9 and raw.startswith(b"{"):
            key = random.choice(KEYS)
            return b"{" + f"{json.dumps(key)}: {json.dumps(self.value())}, ".encode() + raw[1:]
        if choice == 10:
            depth = random.choice((10, 900, 1100, 5000))
            return raw.replace(b"{}", b"[" * depth + b"]" * depth, 1)
        if choice == 11:
            number = random.choice((b"1" * 5000, b"1" * 100, b"-" + b"9" * 400, b"1." + b"3" * 3000))
            return raw.replace(b"false", number, 1).replace(b"null", number, 1)
        if choice == 12:
            return bytes(byte ^ (random.random() < 0.02) * random.randrange(256) for byte in raw)
        return raw.replace(b'"', b"'", random.choice((1, -1)))

    def _huge(self, raw: bytes) -> bytes:
        """About as much as is taken, and more."""
        random = self._random
        room = random.choice((LIMIT - 1, LIMIT, LIMIT + 1, LIMIT * 2, 300_000)) - len(raw)
        kinds: tuple[Callable[[], bytes], ...] = (
            lambda: raw + b" " * room,
            lambda: b"[" * DEEP + b"]" * DEEP,
            lambda: b'{"a":' * DEEP + b"1" + b"}" * DEEP,
            lambda: b'{"NetworkID":"' + b"n" * room + b'"}',
            lambda: b'{"PoolID":"' + b"p\\n" * (room // 3) + b'","Address":"10.1.0.7"}',
            lambda: b'{"IPv4Data":[' + b"{}," * (room // 3) + b"{}]}",
            lambda: b'{"Options":{"com.docker.network.generic":{"' + b"o" * room + b'":""}}}',
            lambda: b'{"Options":{' + b",".join(b'"%d":""' % number for number in range(room // 12)) + b"}}",
            lambda: b'{"AddressSpace":"' + b"s" * room + b'","Pool":"10.1.0.0/16"}',
            lambda: b"1" * room,
        )
        return random.choice(kinds)()

    def request(self, method: str, raw: bytes) -> bytes:
        """A request that is itself none, or hardly one."""
        random = self._random
        head = f"POST /{method} HTTP/1.1\r\nHost: \r\n".encode()
        length = b"Content-Length: %d\r\n" % len(raw)
        kinds: tuple[Callable[[], bytes], ...] = (
            lambda: head + b"\r\n" + raw,
            lambda: head + b"Content-Length: -1\r\n\r\n" + raw,
            lambda: head + b"Content-Length: x\r\n\r\n" + raw,
            lambda: head + b"Content-Length: \xc2\xb2\r\n\r\n" + raw,
            lambda: head + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n" + raw,
            lambda: head + b"Content-Length: %d\r\n\r\n" % (LIMIT * 4) + raw,
            lambda: head + b"Content-Length: %d\r\n\r\n" % (len(raw) + 10) + raw,
            lambda: head + b"Content-Length: %d\r\n\r\n" % (len(raw) // 2) + raw,
            lambda: head + length + b"Content-Length: 1\r\n\r\n" + raw,
            lambda: head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(raw), raw),
            lambda: head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + raw,
            lambda: head + b"Transfer-Encoding: chunked\r\n\r\n-5\r\n" + raw,
            lambda: head + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 5000 + b"\r\n" + raw,
            lambda: head + b"Transfer-Encoding: gzip\r\n\r\n" + raw,
            lambda: head + length + b"Transfer-Encoding: chunked\r\n\r\n" + raw,
            lambda: head.replace(b"1.1", b"1.0") + length + b"\r\n" + raw,
            lambda: head.replace(b"1.1", b"9.9") + length + b"\r\n" + raw,
            lambda: head.replace(b" HTTP/1.1", b"") + length + b"\r\n" + raw,
            lambda: (
                head.replace(
                    b"POST", random.choice((b"GET", b"PUT", b"HEAD", b"OPTIONS", b"TRACE", b"P\x00ST", b""))
                )
                + length
                + b"\r\n"
                + raw
            ),
            lambda: (
                head.replace(
                    b"/" + method.encode(),
                    random.choice(
                        (
                            b"/",
                            b"*",
                            b"//",
                            b"/%00",
                            b"/%ff%0a",
                            b"/\xff",
                            b"http://x/y",
                            b"/" + b"a" * 5000,
                            b"/../..",
                        )
                    ),
                )
                + length
                + b"\r\n"
                + raw
            ),
            lambda: head + b"X: " + b"y" * 20000 + b"\r\n" + length + b"\r\n" + raw,
            lambda: head + b"X: y\r\n" * 2000 + length + b"\r\n" + raw,
            lambda: head + b"no colon\r\n" + length + b"\r\n" + raw,
            lambda: head + b"X\x00Y: \x00\r\n" + length + b"\r\n" + raw,
            lambda: head + b"Expect: 100-continue\r\n" + length + b"\r\n" + raw,
            lambda: head + b"Connection: close\r\n" + length + b"\r\n" + raw,
            lambda: head + b"Content-Type: multipart/form-data; boundary=x\r\n" + length + b"\r\n" + raw,
            lambda: head + b"Content-Type: multipart/form-data\r\n" + length + b"\r\n" + raw,
            lambda: (
                head
                + b"Content-Type: application/x-www-form-urlencoded\r\n"
                + length
                + b"\r\n"
                + b"a=%ff&" * 20
            ),
            lambda: head + b"Upgrade: h2c\r\nConnection: Upgrade\r\n" + length + b"\r\n" + raw,
            lambda: head + length + b"\r\n" + raw + b"\x00\x01garbage\r\n\r\n",
            lambda: (head + length + b"\r\n" + raw) * 3,
            lambda: raw,
            lambda: b"\r\n" * 200 + head + length + b"\r\n" + raw,
            lambda: bytes(random.randrange(256) for _ in range(200)) + b"\r\n\r\n",
            lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + raw,
            lambda: (head + length + b"\r\n" + raw)[: random.randrange(len(head) + 20)],
        )
        return random.choice(kinds)()
