import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geniehive.rules.join_token import JoinToken, read

TOKEN = JoinToken(bytes(range(32)), b"0123456789abcdef")


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=16, max_size=16))
def test_read_as_it_was_written(digest: bytes, secret: bytes) -> None:
    token = JoinToken(digest, secret)
    assert read(f"  {token.text}\n") == token
    assert len(token.text) == 68


def test_what_control_keeps_and_what_people_see_do_not_tell_the_secret() -> None:
    assert TOKEN.secret_sha256 == hashlib.sha256(TOKEN.secret).digest()
    shown = f"{TOKEN!r} {TOKEN.token_id}"
    for secret in (TOKEN.text, TOKEN.secret.hex(), base64.b64encode(TOKEN.secret).decode(), "0123456789abcdef"):
        assert secret not in shown


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no join token"),
        ("ghc-abc", 'begins with "ghj-"'),
        (TOKEN.text[:-1], "damaged"),
        (TOKEN.text[:-4], "not whole"),
        (TOKEN.text + "AAAA", "not whole"),
        (TOKEN.text.replace("A", "!", 1), "damaged"),
        (TOKEN.text[:20] + " " + TOKEN.text[20:], "damaged"),
        ("ghj-ünïcode", "damaged"),
    ],
)
def test_what_is_none_is_told_apart_without_repeating_it(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        read(text)
    assert len(text) < 10 or text[4:] not in str(error.value)


def test_quotes_and_blanks_round_a_token_are_no_part_of_it() -> None:
    token = JoinToken(bytes(range(32)), bytes(16))
    for text in (f" {token.text}\n", f'"{token.text}"', f"'{token.text}' "):
        assert read(text) == token
