from geniehive.rules.operations import BY_PATH, BY_WORD, Operation


def test_words_and_operations_are_one_to_one() -> None:
    assert {word: operation.word for word, operation in BY_WORD.items()} == {word: word for word in BY_WORD}
    assert set(BY_WORD.values()) == set(Operation)
    assert BY_WORD["chat"] is Operation.CHAT


def test_every_operation_has_a_path() -> None:
    assert set(BY_PATH.values()) == set(Operation)


def test_paths_are_plain() -> None:
    for path in BY_PATH:
        assert path.startswith("/")
        assert path == path.lower()
        assert not path.endswith("/")
        assert not any(sign in path for sign in ("//", ".", "%", "?"))
