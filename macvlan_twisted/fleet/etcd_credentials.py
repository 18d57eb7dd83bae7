"""The files that prove who we are to etcd, and etcd to us: read when they are needed, and again when they change."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import fail
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from .etcd_values import EtcdRefused, Refusal

CONNECT_TIMEOUT = 10.0
"""Seconds, at most; the deadline of a request is shorter as a rule."""
_PEM = 1
"""``OpenSSL.crypto.FILETYPE_PEM``"""
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.S)


def credentials_error(message: str) -> EtcdRefused:
    return EtcdRefused(Refusal.CREDENTIALS, message)


def read_file(path: Path, purpose: str, option: str) -> bytes:
    """
    :param purpose: what the file is for; *option*: what names it: both for the message.
    :raises EtcdRefused:
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise credentials_error(
            f"cannot read {purpose} {path}: {error.strerror}; correct {option} or the file's permissions"
        ) from None


def read_login(path: Path) -> tuple[str, str]:
    """
    The name and the password on the first line of a file.

    :raises EtcdRefused:
    """
    first = read_file(path, "etcd's name and password", "--fleet-password-file").partition(b"\n")[0]
    name, colon, password = first.decode("utf-8", "replace").rstrip("\r").partition(":")
    if not (name and colon and password):
        raise credentials_error(f"{path} has no name and password: write NAME:PASSWORD on its first line")
    return name, password


@define
class TlsFiles:
    """
    The files of ``--fleet-ca``, ``--fleet-cert`` and ``--fleet-key``, in PEM.

    :param ca: certificates of authorities that may sign those of etcd; those that the system trusts if this is ``None``.
    :param certificate: ours, and those between it and its authority's; *key*: its private key.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    _read: dict[str, Any] = field(factory=dict, init=False)
    _stamps: tuple[Any, ...] | None = field(default=None, init=False)

    def options_for(self, host: str) -> Any:
        """
        What a connection to *host* needs, whose certificate must name it.

        :return: ``IOpenSSLClientConnectionCreator``
        :raises EtcdRefused: with the file and the remedy.
        """
        stamps = tuple(self._stamp(path) for path in (self.ca, self.certificate, self.key))
        try:
            from twisted.internet import ssl

            if stamps != self._stamps:
                self._read = self._load(ssl)
                self._stamps = stamps
            return ssl.optionsForClientTLS(host, **self._read)
        except EtcdRefused:
            raise
        except Exception as error:  # of whatever TLS libraries there are
            raise credentials_error(
                f"TLS is not available: {error}; install pyOpenSSL and service_identity of matching versions"
            ) from error

    @staticmethod
    def _stamp(path: Path | None) -> tuple[int, int] | None:
        try:
            found = os.stat(path) if path else None
        except OSError:
            return None  # reading it raises the error
        return found and (found.st_mtime_ns, found.st_ino)

    def _load(self, ssl: Any) -> dict[str, Any]:
        options: dict[str, Any] = {"trustRoot": ssl.platformTrust()}
        if self.ca:
            blocks = _CERTIFICATE.findall(
                read_file(self.ca, "the certificates of etcd's authority", "--fleet-ca")
            )
            options["trustRoot"] = ssl.trustRootFromCertificates(
                [_parsed(ssl.Certificate.loadPEM, each, self.ca, "--fleet-ca") for each in blocks or [b""]]
            )
        if (self.certificate is None) != (self.key is None):
            raise credentials_error(
                "a certificate and its key belong together: set both --fleet-cert and --fleet-key"
            )
        if self.certificate and self.key:
            options["extraCertificateOptions"] = self._load_own(ssl, self.certificate, self.key)
        return options

    @staticmethod
    def _load_own(ssl: Any, certificate: Path, key: Path) -> dict[str, Any]:
        blocks = _CERTIFICATE.findall(read_file(certificate, "the certificate", "--fleet-cert"))
        own, *chain = [
            _parsed(ssl.Certificate.loadPEM, each, certificate, "--fleet-cert").original
            for each in blocks or [b""]
        ]
        secret = read_file(key, "the private key", "--fleet-key")
        if b"ENCRYPTED" in secret:  # OpenSSL would ask for the passphrase on the terminal
            raise credentials_error(f"the private key {key} has a passphrase: use a key without one")
        private = _parsed(ssl.KeyPair.load, secret, key, "--fleet-key", _PEM).original
        options = {"privateKey": private, "certificate": own, "extraCertChain": chain}
        try:
            ssl.CertificateOptions(**options).getContext()
        except (
            MemoryError
        ) as error:  # MemoryDenyWriteExecute= of systemd: cffi makes callbacks in such memory
            raise credentials_error(
                "TLS is not possible, since this service may not make memory executable: install the systemd unit's drop-in "
                "fleet.conf"
            ) from error
        except Exception as error:  # OpenSSL.SSL.Error
            raise credentials_error(
                f"the private key {key} does not belong to the certificate {certificate}: correct --fleet-cert or --fleet-key"
            ) from error
        return options


def _parsed(load: Any, pem: bytes, path: Path, option: str, *arguments: Any) -> Any:
    try:
        return load(pem, *arguments)
    except Exception as error:  # of cryptography, of OpenSSL: their classes vary between versions
        raise credentials_error(f"cannot parse {path}: use a file in PEM format for {option}") from error


@frozen
@implementer(IAgentEndpointFactory)
class MemberEndpoints:
    """
    Connections to members, for an :class:`~twisted.web.client.Agent`.

    :param reactor: ``IReactorTCP``, ``IReactorTime``, ``IReactorPluggableNameResolver``
    :param tls: ``None`` without encryption.
    """

    reactor: Any
    tls: TlsFiles | None

    def endpointForURI(self, uri: URI) -> Any:
        return _MemberEndpoint(self, uri.host.strip(b"[]").decode(), uri.port)


@frozen
class _MemberEndpoint:
    """Reads changed files when it connects, and only then."""

    made_by: MemberEndpoints
    host: str
    port: int

    def connect(self, factory: Any) -> Any:
        factory.noisy = False  # an absent member is retried often
        endpoint: Any = HostnameEndpoint(self.made_by.reactor, self.host, self.port, timeout=CONNECT_TIMEOUT)
        if self.made_by.tls:
            try:
                endpoint = wrapClientTLS(self.made_by.tls.options_for(self.host), endpoint)
            except EtcdRefused:
                return fail()
        return endpoint.connect(factory)
