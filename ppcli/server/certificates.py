"""The TLS certificate of a server and its key, looked at before anything is served."""

from __future__ import annotations

import ssl
from pathlib import Path

from ppcli.errors import Usage


def check(certfile: Path, keyfile: Path | None) -> None:
    """Raises `Usage` (reason `tls`) for files that hold no certificate and its key, in PEM; `keyfile` None: the key is
    in `certfile` too."""
    if b"CERTIFICATE-----" not in _read("--certfile", certfile):
        raise _unusable(f"{certfile} holds no certificate (PEM).", "Name its file with --certfile.")
    place = keyfile or certfile
    key = _read("--keyfile", place)
    if b"PRIVATE KEY-----" not in key:
        raise _unusable(
            f"{place} holds no private key (PEM).", "Name the file of the certificate's key with --keyfile."
        )
    if b"ENCRYPTED" in key:
        raise _unusable(f"The key in {place} is encrypted.", f"Decrypt it: openssl pkey -in {place} -out KEYFILE.")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certfile, keyfile, password="")  # nobody is asked
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise _unusable(f"The key in {place} is not that of {certfile}.", "Check --keyfile.") from error
        raise _unusable(f"The certificate cannot be used: {error}.", "Check --certfile and --keyfile.") from error


def _read(option: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unusable(f"{path} cannot be read: {error.strerror or error}.", f"Check {option}.") from error


def _unusable(message: str, hint: str) -> Usage:
    return Usage(message, hint=hint, reason="tls")
