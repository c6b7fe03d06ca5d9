"""Whom to trust: SSL_CERT_FILE or SSL_CERT_DIR, else the system's authorities, else those that came with httpx."""

from __future__ import annotations

import os
import ssl

from ppcli.errors import Usage


def context() -> ssl.SSLContext:
    """For connections to servers. Raises `Usage` where SSL_CERT_FILE names no readable file of certificates."""
    file, directory = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    try:
        if file or directory:
            return ssl.create_default_context(cafile=file or None, capath=directory or None)
    except OSError as error:  # SSLError is one
        raise Usage(
            f"SSL_CERT_FILE ({file}) cannot be read as certificates: {error.strerror or error}.",
            hint="Name a PEM file, or unset it.",
            reason="tls",
        ) from error
    default = ssl.get_default_verify_paths()
    if default.cafile or default.capath:
        return ssl.create_default_context()
    import certifi

    return ssl.create_default_context(cafile=certifi.where())
