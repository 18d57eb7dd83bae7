"""Read the members of a JSON object; errors name the member and show its value."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import BadRequest

# Remedy of these errors: use Docker Engine; another client must send a JSON object as the protocol describes.

T = TypeVar("T")

MAX_TEXT_LENGTH = 4096
"""Characters of a string. The longest that an engine sends are paths."""


def parse_body(method: str, raw: bytes) -> Fields:
    """
    Parse the body of a call of *method*.

    An empty body is an error, not an empty object: the engine repeats a call whose connection broke, and by then it has
    consumed the body (docs/reference/protocol).

    :raises BadRequest: the body is not a JSON object.
    """
    if not raw.strip():
        raise BadRequest(
            f"{method} has an empty body, because the engine lost the connection and repeated the call without "
            "its content: run the docker command again"
        )
    try:
        # Decode first: given bytes, json.loads also accepts UTF-16, UTF-32 and lone surrogates.
        text = raw.decode()
        value = json.loads(text)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadRequest(f"{method}: the body is not JSON: it contains an unpaired surrogate") from None
    except RecursionError:
        raise BadRequest(f"{method}: the body is nested too deeply") from None
    except ValueError as error:
        raise BadRequest(f"{method}: the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadRequest(f"{method}: the body must be a JSON object, not {_abbreviated(value)}")
    return Fields(method, value)


def _abbreviated(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."


class Fields:
    """
    The members of one JSON object.

    Every reader raises :exc:`~macvlan_twisted.errors.BadRequest` if the member has another type or form.

    :param name: of the object, for errors.
    """

    def __init__(self, name: str, members: dict[str, Any]) -> None:
        self._object = name
        self._members = members

    def _error(self, name: str, expected: str) -> BadRequest:
        return BadRequest(
            f"{self._object}: {name} must be {expected}, not {_abbreviated(self._members.get(name))}"
        )

    def text(self, name: str) -> str:
        """A string; absent and null read as ``""``, as in Go."""
        value = self._members.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self._error(name, "a string")
        if len(value) > MAX_TEXT_LENGTH:
            raise self._error(name, f"at most {MAX_TEXT_LENGTH} characters long")
        return value

    def identifier(self, name: str) -> str:
        """An id of the engine: 64 hexadecimal digits, or 25 of base 36 in swarm mode; never empty."""
        value = self.text(name)
        if not value or len(value) > 128 or not (value.isascii() and value.isalnum()):
            raise self._error(name, "an id of letters and digits")
        return value

    def flag(self, name: str) -> bool:
        value = self._members.get(name)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise self._error(name, "true or false")
        return value

    def object(self, name: str) -> Fields:
        """A nested object; absent and null read as an empty one."""
        return Fields(f"{self._object}: {name}", self.mapping(name))

    def mapping(self, name: str) -> dict[str, Any]:
        value = self._members.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self._error(name, "an object")
        return value

    def texts(self, name: str) -> dict[str, str]:
        """An object whose values are strings, such as all ``-o`` options."""
        value = self.mapping(name)
        for key, each in value.items():
            if not isinstance(each, str):
                raise BadRequest(
                    f"{self._object}: key {_abbreviated(key)} of {name} must be a string, not {_abbreviated(each)}"
                )
        return value

    def objects(self, name: str) -> list[Fields]:
        """A list of objects; absent and null read as an empty one."""
        value = self._members.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise self._error(name, "a list of objects")
        return [Fields(f"{self._object}: {name}[{number}]", each) for number, each in enumerate(value)]

    def parsed(self, name: str, parse: Callable[[str], T]) -> T | None:
        """
        A string, parsed; ``None`` if it is absent or empty.

        :param parse: raises :exc:`ValueError` for a string that it does not accept.
        """
        text = self.text(name)
        if not text:
            return None
        try:
            return parse(text)
        except ValueError as error:
            raise BadRequest(f"{error} ({self._object}: {name})") from None

    def required(self, name: str, parse: Callable[[str], T]) -> T:
        """As :meth:`parsed`, but neither absent nor empty."""
        value = self.parsed(name, parse)
        if value is None:
            raise self._error(name, "set")
        return value
