"""Clients of Docker Engine's API. Background work only: a request from inside a plugin call deadlocks the engine."""
