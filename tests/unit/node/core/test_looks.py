from geniehive_node.core.looks import LookFailed, Source, Trouble


def test_only_what_somebody_asked_for_is_missed() -> None:
    assert not Source(key="a", url="http://127.0.0.1:8080").expected
    assert Source(key="a", url="http://127.0.0.1:9999", configured=True).expected
    assert not Source(key="a", url="http://127.0.0.1:8802", configured=True, demo=True).expected


def test_a_failed_look_says_how() -> None:
    error = LookFailed(Trouble.REFUSED, "needs a key", "vllm")
    assert (error.trouble, error.message, error.runtime, str(error)) == (
        Trouble.REFUSED,
        "needs a key",
        "vllm",
        "needs a key",
    )
