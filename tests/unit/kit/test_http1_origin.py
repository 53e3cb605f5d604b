import pytest

from geniehive.kit.http1 import Origin, split_url


@pytest.mark.parametrize(
    ("url", "origin", "path"),
    [
        ("http://127.0.0.1:11434", Origin("http", "127.0.0.1", 11434), ""),
        ("http://Box.LAN/", Origin("http", "box.lan", 80), ""),
        ("https://api.example.org/v1/", Origin("https", "api.example.org", 443), "/v1"),
        ("http://[::1]:8080/a/b", Origin("http", "::1", 8080), "/a/b"),
        ("http://[0:0:0:0:0:0:0:1]", Origin("http", "::1", 80), ""),
        ("http://bücher.example:1", Origin("http", "xn--bcher-kva.example", 1), ""),
        ("http://llama_cpp:8080/v1", Origin("http", "llama_cpp", 8080), "/v1"),
    ],
)
def test_split_url(url: str, origin: Origin, path: str) -> None:
    assert split_url(url) == (origin, path)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "box:8000",
        "ftp://box",
        "http://",
        "http://:80",
        "http://user:secret@box",
        "http://box:99999",
        "http://box:0",
        "http://box:x",
        "http://[::1",
        "http://[zz]",
        "http://box/v1?a=b",
        "http://box/#f",
        "http://bo x",
        "http://box\r\nx: y/",
        "http://box/a b",
        "http://box/ü",
        "http://-",
    ],
)
def test_refused(url: str) -> None:
    with pytest.raises(ValueError) as refused:
        split_url(url)
    assert "secret" not in str(refused.value)


def test_parse_takes_no_path() -> None:
    assert Origin.parse("http://[::1]:8080/") == Origin("http", "::1", 8080)
    with pytest.raises(ValueError, match="path"):
        Origin.parse("http://box/v1")


@pytest.mark.parametrize(
    ("origin", "text"),
    [
        (Origin("http", "::1", 8080), "http://[::1]:8080"),
        (Origin("https", "box", 443), "https://box"),
        (Origin("http", "box", 443), "http://box:443"),
    ],
)
def test_text(origin: Origin, text: str) -> None:
    assert str(origin) == text
    assert Origin.parse(text) == origin
