"""The one table that maps exceptions to replies."""

from __future__ import annotations

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from werkzeug.exceptions import HTTPException

from ..errors import MacvlanError

_log = Logger(namespace="macvlan_twisted.protocol")

# With status 200 the engine shows the user "remote: <our message>", with any other "<Method>: <our message>"; it retries
# after none (docs/reference/protocol).
_TABLE: tuple[tuple[type[BaseException], int | None], ...] = (
    (MacvlanError, 200),
    (HTTPException, None),  # carries its own status: 404 for an unknown method, 405 for another verb
    (Exception, 500),  # a bug
)

MAX_MESSAGE_LENGTH = 2000
"""Characters. Messages and log lines quote what a client sends."""


def printable(text: str) -> str:
    """
    Make *text* safe to log and to show in a terminal.

    :return: one line of at most :data:`MAX_MESSAGE_LENGTH` characters, apart from the escapes that replace unprintable ones.
    """
    if len(text) > MAX_MESSAGE_LENGTH:
        half = MAX_MESSAGE_LENGTH // 2 - 10
        text = f"{text[:half]} ... {text[-half:]}"
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def error_body(message: str) -> dict[str, str]:
    """The engine reads ``Err`` in replies of NetworkDriver, ``Error`` in those of IpamDriver."""
    return {"Err": message, "Error": message}


def error_reply(method: str, failure: Failure) -> tuple[int, dict[str, str]]:
    """
    Log *failure*, a bug with its traceback.

    :return: status and body of the reply.
    """
    error = failure.value
    message = printable(str(error))
    kind, status = next(row for row in _TABLE if isinstance(error, row[0]))
    if kind is Exception:
        _log.failure("{method}: failed, a bug in the plugin", failure=failure, method=method)
        # Remedy: report this bug.
        return 500, error_body(
            f"{method}: bug in the plugin, {type(error).__name__}: {message}; the plugin's log has the details"
        )
    if isinstance(error, HTTPException):
        return error.code or 500, error_body(f"{method}: {error.description}")
    # Cause: the request cannot be fulfilled; the ``docker`` command prints the same reason. Remedy: see the reason in the
    # line; the reference page on errors lists the remedies.
    _log.emit(LogLevel.warn, "{method} refused: {reason}", method=method, reason=message)
    return status or 200, error_body(message)
