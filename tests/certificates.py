"""Certificates for tests: of an authority that only the test trusts.

Hands to: `test_tls`, `end_to_end/test_wss`.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import attrs
import trustme


@attrs.define
class Issued:
    """A certificate for 127.0.0.1 with its key in two files, and who signed it."""

    cert: Path
    key: Path
    authority: trustme.CA

    def trusting(self) -> ssl.SSLContext:
        """What a client needs that trusts this authority and no other."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.authority.configure_trust(context)
        return context


def issue(where: Path, authority: trustme.CA | None = None, name: str = "server") -> Issued:
    """A new certificate in the directory `where`, over what is there by that name."""
    signer = authority or trustme.CA()
    made = signer.issue_cert("127.0.0.1", "localhost")
    issued = Issued(where / f"{name}.pem", where / f"{name}.key", signer)
    issued.cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    made.private_key_pem.write_to_path(str(issued.key))
    return issued
