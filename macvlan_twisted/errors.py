"""
Errors that every room raises; :mod:`macvlan_twisted.protocol.errors` maps them to replies.

A message says what is wrong, with which value, and what to do.
"""

from __future__ import annotations


class MacvlanError(Exception):
    """The base of all errors that are meant for a user or the engine. Any other exception is a bug."""


class BadRequest(MacvlanError):
    """The body of a call breaks the plugin protocol."""


class RequestRefused(MacvlanError):
    """The request is valid and cannot be fulfilled. Nothing was changed."""


class NotFound(RequestRefused):
    """There is no such network, endpoint or pool."""


class LinkError(MacvlanError):
    """
    The kernel refused a netlink request.

    :param errno: the kernel's error number, 0 if there is none.
    """

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno


class CallTimeout(MacvlanError):
    """A call is not finished in time. It goes on, and what it leaves is reconciled."""


class StateError(MacvlanError):
    """The state cannot be saved, or is damaged."""


class NewerStateError(StateError):
    """A later version of the program wrote the state: it is intact, and this version cannot read it."""


class StartupError(MacvlanError, SystemExit):
    """
    The service cannot start. The program prints one line that says why, and exits with status 1.

    It is a :class:`SystemExit`, so that the interpreter prints the line without a traceback. It is an :class:`Exception`,
    so that a daemonising ``twistd`` catches it in ``startService``, and ends with status 1.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = message  # Exception precedes SystemExit in the MRO, so that nothing else sets it
