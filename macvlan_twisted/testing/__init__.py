"""Fakes for tests. The contract tests hold them to the behaviour of the real parts."""
