"""Pools and addresses: pure allocation, and the calls on it."""
