"""Join tokens: what a machine needs to join, in one word.

A token is "ghj-" and 64 letters, base64 of 48 bytes: the SHA-256 of the CA's certificate, by which the joiner knows
control before it says anything, and 16 random bytes, by which control knows the joiner.
"""

import base64
import binascii
import hashlib
from typing import NamedTuple

PREFIX = "ghj-"
SECRET_BYTES = 16
_DIGEST_BYTES = 32


class JoinToken(NamedTuple):
    """ca_sha256: of the CA's certificate in DER. `secret` must not be shown."""

    ca_sha256: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"JoinToken({self.ca_sha256.hex()[:16]}...)"

    @property
    def text(self) -> str:
        return PREFIX + base64.urlsafe_b64encode(self.ca_sha256 + self.secret).decode("ascii")

    @property
    def secret_sha256(self) -> bytes:
        """What control keeps."""
        return hashlib.sha256(self.secret).digest()

    @property
    def token_id(self) -> str:
        """By which people name it; tells nothing of the secret."""
        return f"t{self.secret_sha256.hex()[:10]}"


def read(text: str) -> JoinToken:
    """ValueError, for people, if `text` is no token."""
    # With the quotes that a file or a variable may have round it.
    text = text.strip().strip("'\"").strip()
    if not text.startswith(PREFIX):
        raise ValueError(f'this is no join token: one begins with "{PREFIX}"')
    try:
        raw = base64.b64decode(text.removeprefix(PREFIX), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise ValueError("this join token is damaged; copy it again, whole") from None
    if len(raw) != _DIGEST_BYTES + SECRET_BYTES:
        raise ValueError("this join token is not whole; copy it again")
    return JoinToken(raw[:_DIGEST_BYTES], raw[_DIGEST_BYTES:])
