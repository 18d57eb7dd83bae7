"""The program is imported whatever TLS libraries are installed beside it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from .helpers import fresh_directory

CHECKOUT = Path(__file__).resolve().parents[2]
IMPORT = "import macvlan_twisted.tap, macvlan_twisted.commands.cli, sys; print('OpenSSL' in sys.modules)"
BROKEN_LIBRARIES = {
    "without its companions": {"__init__.py": "", "SSL.py": "class Error(Exception): pass\n"},
    "for another cryptography": {
        "__init__.py": "raise AttributeError('lib has no X509_V_FLAG_NOTIFY_POLICY')\n"
    },
    "damaged": {"__init__.py": "this is no Python\n"},
}
"""What may be called OpenSSL, by the reason why Twisted cannot use it."""


class WithoutTlsTests(SynchronousTestCase):
    def test_incomplete_tls_libraries_do_not_prevent_the_import(self) -> None:
        for reason, files in BROKEN_LIBRARIES.items():
            place = fresh_directory(self)
            (place / "OpenSSL").mkdir()
            for name, text in files.items():
                (place / "OpenSSL" / name).write_text(text)
            done = subprocess.run(
                (sys.executable, "-c", IMPORT),
                env={"PYTHONPATH": f"{CHECKOUT}:{place}"},
                cwd=place,
                capture_output=True,
                text=True,
                check=False,
            )
            with self.subTest(reason=reason):
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual(done.stdout, f"{'its companions' in reason}\n", "it was left as it was")
