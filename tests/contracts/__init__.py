"""Tests that every implementation of an interface is held to: the real ones, and the fakes that stand for them."""

import pytest

pytest.register_assert_rewrite("tests.contracts.kernel_contract")
