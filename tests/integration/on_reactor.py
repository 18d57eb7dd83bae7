"""Tests that are coroutines on the reactor, which pytest-twisted runs in the main thread."""

from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

import pytest_twisted
from twisted.internet.defer import Deferred

P = ParamSpec("P")


def on_reactor(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, Deferred[None]]:
    """Let pytest run an ``async def`` test."""
    decorated: Callable[P, Deferred[None]] = pytest_twisted.ensureDeferred(test)
    return decorated
