"""The time of day of one process, which a test sets while the process runs. The machine's own stays as it is."""

import os
from pathlib import Path

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
"""libfaketime of Debian's package of that name. Programs in Go, such as dockerd, ignore it."""


class WallClock:
    """The time of day of each process that gets `environment`. Clocks that nobody sets are left alone."""

    def __init__(self, directory: Path) -> None:
        """Keep the time of day in a file in a directory; at first it is the machine's."""
        self._file = directory / "wall-clock"
        self.set(0)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that a process needs."""
        return {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, seconds: int) -> None:
        """Set the clock so far off the machine's, from now on."""
        beside = self._file.with_suffix(".new")
        beside.write_text(f"{seconds:+d}\n", encoding="ascii")
        os.rename(beside, self._file)  # it is read all the time
