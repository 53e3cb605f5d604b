"""Looks at a TLS server by itself: which certificates it shows, and why it and we don't come together.

gRPC says little of why a handshake failed; the same handshake made here has the words.
"""

import asyncio
import os
import socket
import ssl
from typing import Any, cast

OURS_EXPIRED = "it says that our certificate has expired; is the clock of one of the machines wrong?"
REFUSES = "it does not accept our certificate"
WANTS_OURS = "it asks for a certificate, and we have none"
_ALERTS = {
    "CERTIFICATE_EXPIRED": OURS_EXPIRED,
    "CERTIFICATE_REQUIRED": WANTS_OURS,
    "UNKNOWN_CA": "it does not know the CA of our certificate: we belong to another cluster",
    "CERTIFICATE_UNKNOWN": REFUSES,
    "BAD_CERTIFICATE": REFUSES,
    "CERTIFICATE_REVOKED": "it says that our certificate was revoked",
    "UNSUPPORTED_CERTIFICATE": "it does not accept our kind of certificate",
}
# Of OpenSSL's X509_V_ERR_*.
_NOT_YET, _EXPIRED, _NAME = 9, 10, 62
_UNKNOWN_ISSUER = {2, 18, 19, 20, 21}


async def fetch_chain(host: str, port: int, timeout: float) -> list[bytes]:
    """The certificates that a server shows, in DER, leaf first. Nothing is verified, and nothing is sent.

    OSError or TimeoutError if it can't be reached, ssl.SSLError if it speaks no TLS.
    """
    return await asyncio.to_thread(_fetch, host, port, timeout)


def _fetch(host: str, port: int, timeout: float) -> list[bytes]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with socket.create_connection((host, port), timeout) as plain, context.wrap_socket(plain) as tls:
        if hasattr(tls, "get_unverified_chain"):  # from Python 3.13 on
            return cast(list[bytes], tls.get_unverified_chain())
        found: list[Any] = cast(Any, tls)._sslobj.get_unverified_chain() or []
        return [ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in found]


async def why_not(host: str, port: int, context: ssl.SSLContext, name: str, timeout: float) -> str | None:
    """Why no TLS connection to this server comes about, in words; None if one does.

    context: with the CA to believe and our own certificate. name: that the server's certificate must have.
    """
    return await asyncio.to_thread(look, host, port, context, name, timeout)


def look(host: str, port: int, context: ssl.SSLContext, name: str, timeout: float) -> str | None:
    """As `why_not`, for synchronous callers."""
    # gRPC closes a connection that does not offer it, as it does one whose certificate it refuses.
    context.set_alpn_protocols(["h2"])
    try:
        plain = socket.create_connection((host, port), timeout)
        with plain, context.wrap_socket(plain, server_hostname=name) as tls:
            # In TLS 1.3 the server's word on our certificate comes after our side of the handshake is done.
            tls.settimeout(min(timeout, 1.0))
            try:
                if not tls.recv(1):
                    return REFUSES
            except TimeoutError:
                pass
        return None
    except (ssl.SSLError, OSError) as error:
        return words(error)


def words(error: BaseException) -> str:
    """What went wrong with a connection, for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        code = error.verify_code
        if code == _EXPIRED:
            return "its certificate has expired; is the clock of one of the machines wrong?"
        if code == _NOT_YET:
            return "its certificate is not valid yet; is the clock of one of the machines wrong?"
        if code == _NAME:
            return "its certificate is for somebody else"
        if code in _UNKNOWN_ISSUER:
            return "its certificate is not of this cluster's CA: it is another cluster, or somebody in between"
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or str(error)
        for alert, said in _ALERTS.items():
            if reason.endswith(alert):
                return said
        if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNEXPECTED_MESSAGE"):
            return "it does not speak TLS; is this the right port?"
        return f"TLS failed: {reason.lower().replace('_', ' ')}"
    if isinstance(error, TimeoutError):
        return "it does not answer; is a firewall in between?"
    if isinstance(error, socket.gaierror):
        return f"its name is not known ({error.strerror})"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__
