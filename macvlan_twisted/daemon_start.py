"""
What a daemonising ``twistd`` prints when the service cannot start.

``twistd`` leaves the terminal before it starts the service. Its first process waits for the outcome, and prints the first 90
bytes of an error as Python writes bytes. Here the first process waits for a line of the service's own, of any length, and
prints that.
"""

from __future__ import annotations

import os
import sys


class DaemonStart:
    """The outcome of a start, from the daemon to the process that waits at the terminal."""

    def __init__(self) -> None:
        self._reader = self._writer = -1
        self._is_terminals = True
        """Whether this process is the one at the terminal."""

    def watch(self) -> None:
        """Have the process that forks next wait for the outcome."""
        self._reader, self._writer = os.pipe()
        os.register_at_fork(after_in_parent=self._wait, after_in_child=self._become_child)

    def report(self, error: str) -> None:
        """
        The start is over.

        :param error: why the service cannot start; empty if it has started.
        """
        if self._writer != -1:
            os.write(self._writer, error.encode())
            os.close(self._writer)
            self._writer = -1

    def _become_child(self) -> None:
        if self._is_terminals:
            self._is_terminals = False
            os.close(self._reader)

    def _wait(self) -> None:
        """Return if the service has started, or if the daemon has ended without a word: ``twistd`` deals with that."""
        if not self._is_terminals or self._writer == -1:
            return
        os.close(self._writer)
        self._writer = -1
        with open(self._reader, "rb") as outcome:
            error = outcome.read()
        if error:
            print(f"macvlan-twisted: {error.decode()}", file=sys.__stderr__, flush=True)
            os._exit(1)
