"""The one table that turns exceptions into replies."""

from __future__ import annotations

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from werkzeug.exceptions import HTTPException

from ..errors import MacvlanError

_log = Logger(namespace="macvlan_twisted.protocol")

# What the engine makes of a status (docs/reference/protocol): with 200 the user reads "remote: <our words>",
# with another "<Method>: <our words>"; none makes it try again.
_TABLE: tuple[tuple[type[BaseException], int | None], ...] = (
    (MacvlanError, 200),
    (HTTPException, None),  # brings its own: 404 for an unknown method, 405, 413
    (Exception, 500),  # a bug of ours
)


MAX_MESSAGE_LENGTH = 2000
"""Characters: what somebody sends us comes back in messages, and stands in the log."""


def printable(text: str) -> str:
    """*text* in one line that does nothing to a terminal, and is no longer than a reader cares for."""
    if len(text) > MAX_MESSAGE_LENGTH:
        half = MAX_MESSAGE_LENGTH // 2 - 10
        text = f"{text[:half]} ... {text[-half:]}"
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def error_body(message: str) -> dict[str, str]:
    """An error as both subsystems read it: NetworkDriver looks for ``Err``, IpamDriver for ``Error``."""
    return {"Err": message, "Error": message}


def error_reply(method: str, failure: Failure) -> tuple[int, dict[str, str]]:
    """Status and body for *failure*; what we did not foresee is logged with its traceback."""
    error = failure.value
    said = printable(str(error))
    kind, status = next(row for row in _TABLE if isinstance(error, row[0]))
    if kind is Exception:
        _log.failure("{method} failed in a way that is a bug of ours", failure=failure, method=method)
        return 500, error_body(
            f"{method}: bug in the plugin, {type(error).__name__}: {said}; its log has the details"
        )
    if isinstance(error, HTTPException):
        return error.code or 500, error_body(f"{method}: {error.description}")
    _log.emit(LogLevel.warn, "{method} refused: {reason}", method=method, reason=said)
    return status or 200, error_body(said)
