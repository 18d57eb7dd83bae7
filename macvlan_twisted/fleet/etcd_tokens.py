"""Authentication by name and password: one token for all requests, and a new one when etcd does not accept it any more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.python.failure import Failure

from .etcd_credentials import read_login
from .etcd_members import EtcdMembers
from .etcd_values import EtcdRefused, EtcdUnavailable, Refusal

AUTHENTICATION_TIMEOUT = 10.0
"""Seconds. etcd takes half a second to check a password, by intention; more than some requests have."""


class NoTokens:
    """For an etcd without authentication."""

    async def current(self, timeout: float) -> str:
        return ""

    def forget(self, token: str) -> None: ...


class LoginTokens:
    """
    Tokens for the name and password in a file, which is read at each authentication.

    :param clock: ``IReactorTime``
    """

    def __init__(self, path: Path, members: EtcdMembers, clock: Any) -> None:
        self._path = path
        self._members = members
        self._clock = clock
        self._token: str | None = None
        self._waiting: list[Deferred[str]] = []

    async def current(self, timeout: float) -> str:
        """:raises EtcdUnavailable: :raises EtcdRefused:"""
        if self._token is not None:
            return self._token
        waiting: Deferred[str] = Deferred()
        self._waiting.append(waiting)
        waiting.addTimeout(max(timeout, 0), self._clock)
        if len(self._waiting) == 1:
            # A request that cannot wait for it leaves the token to later ones.
            self._members.run(self._authenticate()).addBoth(self._tell)
        try:
            return await waiting
        except TimeoutError:
            raise EtcdUnavailable(f"etcd did not check the password within {timeout:.1f} s") from None

    def forget(self, token: str) -> None:
        if self._token == token:
            self._token = None

    async def _authenticate(self) -> str:
        name, password = read_login(self._path)
        deadline = self._clock.seconds() + AUTHENTICATION_TIMEOUT
        login = {"name": name, "password": password}
        try:
            answer = await self._members.try_each("/v3/auth/authenticate", login, deadline, "")
        except EtcdRefused as refusal:
            if "not enabled" in str(refusal):
                return ""
            if refusal.kind is Refusal.AUTH:
                raise EtcdRefused(
                    Refusal.AUTH, f"etcd refuses the name and the password in {self._path}: correct them"
                ) from refusal
            raise
        return str(answer["token"])

    def _tell(self, outcome: str | Failure) -> None:
        waiting, self._waiting = self._waiting, []
        self._token = outcome if isinstance(outcome, str) else None
        for each in waiting:
            if not each.called:  # its time is over
                each.callback(outcome)
