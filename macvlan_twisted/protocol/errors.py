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


def error_body(message: str) -> dict[str, str]:
    """An error as both subsystems read it: NetworkDriver looks for ``Err``, IpamDriver for ``Error``."""
    return {"Err": message, "Error": message}


def error_reply(method: str, failure: Failure) -> tuple[int, dict[str, str]]:
    """Status and body for *failure*; what we did not foresee is logged with its traceback."""
    error = failure.value
    kind, status = next(row for row in _TABLE if isinstance(error, row[0]))
    if kind is Exception:
        _log.failure("{method} failed in a way that is a bug of ours", failure=failure, method=method)
        return 500, error_body(
            f"{method}: bug in the plugin, {type(error).__name__}: {error}; its log has the details"
        )
    if isinstance(error, HTTPException):
        return error.code or 500, error_body(f"{method}: {error.description}")
    _log.emit(LogLevel.warn, "{method} refused: {reason}", method=method, reason=str(error))
    return status or 200, error_body(str(error))
