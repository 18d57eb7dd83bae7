"""Files with certificates and keys: errors name the file, and changed files are read again."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import URI

from macvlan_twisted.fleet.etcd_credentials import MemberEndpoints, TlsFiles
from macvlan_twisted.fleet.etcd_values import EtcdRefused, Refusal

from .helpers import fresh_directory


def write_pair(certificate: Path, key: Path, encryption: Any = None) -> None:
    """A new key, and a certificate that it signs itself."""
    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(secret, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        secret.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            encryption or serialization.NoEncryption(),
        )
    )


class TlsFilesTests(SynchronousTestCase):
    def setUp(self) -> None:
        place = fresh_directory(self)
        self.ca, self.certificate, self.key = (place / each for each in ("ca.pem", "own.pem", "own.key"))
        write_pair(self.ca, place / "ca.key")
        write_pair(self.certificate, self.key)
        self.tls = TlsFiles(self.ca, self.certificate, self.key)

    def error(self) -> str:
        refused = self.assertRaises(EtcdRefused, self.tls.options_for, "etcd1")
        self.assertEqual(refused.kind, Refusal.CREDENTIALS)
        return str(refused)

    def test_good_files_are_read(self) -> None:
        for host in ("etcd1", "192.168.1.1", "fd00::1"):
            self.tls.options_for(host)

    def test_system_knows_authorities_too(self) -> None:
        TlsFiles().options_for("etcd1")

    def test_error_names_the_file_and_the_option(self) -> None:
        spoil: dict[str, Callable[[Path], Any]] = {
            "No such file": Path.unlink,
            "use a file in PEM format": lambda path: path.write_text("rubbish"),
        }
        for words, act in spoil.items():
            for path, option in (
                (self.ca, "--fleet-ca"),
                (self.certificate, "--fleet-cert"),
                (self.key, "--fleet-key"),
            ):
                with self.subTest(words=words, option=option):
                    before = path.read_bytes()
                    self.tls = TlsFiles(self.ca, self.certificate, self.key)
                    act(path)
                    message = self.error()
                    for each in (words, str(path), option):
                        self.assertIn(each, message)
                    path.write_bytes(before)

    def test_key_of_another_certificate_is_refused(self) -> None:
        write_pair(self.certificate, self.key.with_suffix(".other"))
        self.assertIn(f"{self.key} does not belong to the certificate {self.certificate}", self.error())

    def test_certificate_and_key_belong_together(self) -> None:
        for tls in (TlsFiles(certificate=self.certificate), TlsFiles(key=self.key)):
            self.tls = tls
            self.assertIn("set both --fleet-cert and --fleet-key", self.error())

    def test_key_with_a_passphrase_is_refused(self) -> None:
        """OpenSSL would ask for it on the terminal."""
        write_pair(self.certificate, self.key, serialization.BestAvailableEncryption(b"secret"))
        self.assertIn(f"{self.key} has a passphrase", self.error())

    def test_changed_files_are_read_again(self) -> None:
        self.tls.options_for("etcd1")
        before = self.tls._read
        self.tls.options_for("etcd2")
        self.assertIs(self.tls._read, before)
        write_pair(self.certificate, self.key)
        for path in (self.certificate, self.key):
            os.utime(path, ns=(1, 1))
        self.tls.options_for("etcd1")
        self.assertIsNot(self.tls._read, before)

    def test_connection_without_usable_files_is_not_attempted(self) -> None:
        self.key.unlink()
        reactor = MemoryReactorClock()
        endpoint = MemberEndpoints(reactor, self.tls).endpointForURI(URI.fromBytes(b"https://[fd00::1]:2379"))
        self.assertEqual((endpoint.host, endpoint.port), ("fd00::1", 2379))
        self.failureResultOf(endpoint.connect(Factory()), EtcdRefused)
        self.assertEqual(reactor.tcpClients, [])
