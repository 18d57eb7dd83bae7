"""Requests that engines make by accident: without the body that they should have, or for what does not exist."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import rules
from .plugin_client import HEADERS
from .recording import BODYLESS, all_recordings, load
from .service_under_test import ServiceUnderTest
from .wire import Connection, request_bytes

METHODS = sorted({call.method for path in all_recordings() for call in load(path).calls})
#: What is answered the same whatever was asked, so that nothing in the body is needed.
BODY_IS_IGNORED = BODYLESS | {"NetworkDriver.DiscoverNew", "NetworkDriver.DiscoverDelete"}


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    service = ServiceUnderTest(tmp_path_factory.mktemp("service"))
    service.start()
    connection = Connection(service.socket_path)
    yield connection
    connection.close()
    service.stop()
    assert service.errors_in_log() == []


@pytest.mark.parametrize("method", [method for method in METHODS if method not in BODY_IS_IGNORED])
def test_empty_body_is_refused_with_a_readable_error(method: str, connection: Connection) -> None:
    reply = connection.exchange(request_bytes(method, HEADERS, ""))
    assert rules.check_http(reply.status, reply.headers, reply.body, reply.json) == []
    assert rules.is_error(reply.json)
    assert rules.check_error(reply.json) == []


@pytest.mark.parametrize("method", sorted(BODY_IS_IGNORED))
def test_call_without_body_is_answered(method: str, connection: Connection) -> None:
    reply = connection.exchange(request_bytes(method, HEADERS, ""))
    assert rules.check_http(reply.status, reply.headers, reply.body, reply.json) == []
    assert not rules.is_error(reply.json)


@pytest.mark.parametrize("body", ["{}\n", "null\n", "[]\n", '"x"\n', "{", "\x00", '{"NetworkID":1}\n'])
@pytest.mark.parametrize(
    "method", ["NetworkDriver.CreateNetwork", "NetworkDriver.Join", "IpamDriver.RequestAddress"]
)
def test_malformed_body_is_refused_with_a_readable_error(
    method: str, body: str, connection: Connection
) -> None:
    reply = connection.exchange(request_bytes(method, HEADERS, body))
    assert rules.check_http(reply.status, reply.headers, reply.body, reply.json) == []
    assert rules.is_error(reply.json)
    assert rules.check_error(reply.json) == []


@pytest.mark.parametrize(
    "method", ["NetworkDriver.Levitate", "IpamDriver.", "VolumeDriver.List", "", "../etc"]
)
def test_unknown_method_gets_404(method: str, connection: Connection) -> None:
    reply = connection.exchange(request_bytes(method, HEADERS, "{}\n"))
    assert rules.check_unknown_method(reply.status, reply.headers, reply.body, reply.json) == []
    assert rules.check_error(reply.json) == []
