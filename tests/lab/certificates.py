"""A certificate authority for the lab: OpenSSL's command makes keys and certificates that nothing else trusts."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from tests.lab.commands import run

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc")
BOTH_ROLES = "extendedKeyUsage=serverAuth,clientAuth"
"""etcd's JSON gateway connects to its own server with the server's certificate."""


@dataclass(frozen=True)
class Certificate:
    """The PEM files of a certificate and of its private key."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority whose files lie in one directory."""

    def __init__(self, directory: Path, name: str = "lab authority") -> None:
        """Make the authority's own key and certificate, ``ca.pem`` and ``ca.key``."""
        self._directory = directory
        self.own = Certificate(directory / "ca.pem", directory / "ca.key")
        self._request(
            self.own, f"/CN={name}", 30, "basicConstraints=critical,CA:TRUE", "keyUsage=keyCertSign"
        )

    def issue(
        self, name: str, addresses: tuple[str, ...] = (), *, common_name: str | None = None, days: int = 30
    ) -> Certificate:
        """Make a certificate for a server that has these IP addresses or DNS names, or for a client that has none.

        The files are called after `name`; so is the common name of the certificate, unless another is given;
        an empty one is left out.
        """
        made = Certificate(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        extensions = ["basicConstraints=CA:FALSE", BOTH_ROLES]
        if addresses:
            extensions.append("subjectAltName=" + ",".join(map(_alternative_name, addresses)))
        signer = ("-CA", str(self.own.certificate), "-CAkey", str(self.own.key))
        subject = f"/CN={name if common_name is None else common_name}"
        self._request(made, subject if common_name != "" else "/", days, *extensions, signer=signer)
        return made

    def _request(
        self, made: Certificate, subject: str, days: int, *extensions: str, signer: tuple[str, ...] = ()
    ) -> None:
        files = ("-keyout", str(made.key), "-out", str(made.certificate))
        added = [word for extension in extensions for word in ("-addext", extension)]
        # Without a configuration file nothing is in the certificate but what we ask for.
        command = ("openssl", "req", "-x509", "-config", "/dev/null", *KEY, *signer, "-subj", subject)
        run(*command, "-days", str(days), *added, *files)


def _alternative_name(address: str) -> str:
    try:
        return f"IP:{ipaddress.ip_address(address)}"
    except ValueError:
        return f"DNS:{address}"
