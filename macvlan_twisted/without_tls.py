"""Twisted's imports where an incomplete TLS library is installed beside us."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec

_IMPORTED_BY = ("twisted.internet.posixbase", "twisted.internet.endpoints", "twisted.web.client")
"""Modules of Twisted that we need, and that import pyOpenSSL where they find it."""


def import_endpoints() -> None:
    """
    Import Twisted's endpoints, without TLS where its libraries do not work.

    Twisted does without pyOpenSSL, but not with one whose companions (service_identity, a cryptography of the right age) are
    missing. Only a fleet needs TLS. If the import fails, it is done again while pyOpenSSL is hidden.
    """
    if find_spec("OpenSSL") is None:
        return
    try:
        for name in _IMPORTED_BY:
            import_module(name)
    except Exception:  # of whatever libraries there are
        _import_without_openssl()


def _import_without_openssl() -> None:
    def is_openssl(name: str) -> bool:
        return name.partition(".")[0] == "OpenSSL"

    found = {name: module for name, module in sys.modules.items() if is_openssl(name)}
    hidden = {"OpenSSL": None, **dict.fromkeys(found)}
    sys.modules.update(hidden)  # type: ignore[arg-type]  # None makes an import fail
    try:
        for name in _IMPORTED_BY:
            import_module(name)
    finally:
        for name in hidden:
            del sys.modules[name]
        sys.modules.update(found)
