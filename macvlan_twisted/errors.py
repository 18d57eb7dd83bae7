"""
What can go wrong, in the words of the person who has to mend it.

Every room raises these; :mod:`macvlan_twisted.protocol.errors` turns them into replies. A message
says what was wrong, with which value, and what to do.
"""

from __future__ import annotations


class MacvlanError(Exception):
    """Anything that we tell a user or the engine on purpose; all others are bugs."""


class BadRequest(MacvlanError):
    """The body of a call is not what the engine's protocol says it is."""


class RequestRefused(MacvlanError):
    """The request was understood and cannot be done; nothing was changed."""


class NotFound(RequestRefused):
    """A network, endpoint or pool that we do not know."""


class LinkError(MacvlanError):
    """The kernel refused a change of links."""

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno


class StateError(MacvlanError):
    """The disk did not take a change, or what it holds is damaged."""


class StartupError(MacvlanError, SystemExit):
    """
    The service cannot start: one line that says why, exit status 1.

    It is a :class:`SystemExit` so that the interpreter prints the line instead of a traceback, and an
    :class:`Exception` so that a daemonising ``twistd`` sees it in ``startService`` and hands it to the
    parent process, which prints its first 90 bytes and exits with 1.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = message  # which SystemExit would set, but Exception comes before it
