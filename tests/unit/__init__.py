"""Tests without root and without a reactor; pytest and trial both run them."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# The machine's load must not fail a test, and what failed once is told by its blob, not by a file left behind.
settings.register_profile(
    "unit", deadline=None, database=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unit")
