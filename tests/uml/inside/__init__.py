"""Tests that run inside the guest only; elsewhere they are skipped."""
