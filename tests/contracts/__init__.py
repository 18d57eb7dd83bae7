"""Tests for every implementation of an interface: the real ones and the fakes."""

import pytest

pytest.register_assert_rewrite("tests.contracts.kernel_contract")
