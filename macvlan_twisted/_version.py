"""The version, kept by incremental; ``python -m incremental.update`` rewrites ``__version__``."""

from incremental import Version

__version__ = Version("macvlan_twisted", 26, 11, 0, dev=0)
VERSION_TEXT = __version__.public()

__all__ = ["VERSION_TEXT", "__version__"]
