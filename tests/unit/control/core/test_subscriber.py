"""RoutingService.WatchRoutes, steps 2 to 4, by events and effects."""

from geniehive.rules.model import ClientKey, Resource
from geniehive_control.core import effects as fx
from geniehive_control.core import events as e
from geniehive_control.core.subscriber import Subscriber
from geniehive_control.core.table import Table


class Play:
    def __init__(self, keys: str = "", held: dict[str, str] | None = None) -> None:
        self.table = Table()
        for key in keys:
            self.table.put_key(ClientKey(key_id=key))
        event = e.Subscribed(subscriber_id="s", gateway_id="g", held=held or {})
        self.subscriber = Subscriber(event, self.table, 0.0)

    def put(self, key: str, name: str = "") -> None:
        self.subscriber.touch(self.table.put_key(ClientKey(key_id=key, display_name=name)))

    def drop(self, key: str) -> None:
        self.subscriber.touch(self.table.drop_key(key))

    def rejected(self) -> str | None:
        return self.subscriber.rejected

    def current(self) -> bool:
        return self.subscriber.current

    def next(self) -> fx.Update | None:
        return self.subscriber.next(self.table, None)

    def says(self) -> tuple[list[str], list[str]]:
        """Changed and removed of the next update."""
        update = self.next()
        assert update is not None
        return [r.name.removeprefix("key/") for r in update.changed], [n.removeprefix("key/") for n in update.removed]

    def ack(self, rejected: str | None = None) -> None:
        assert self.subscriber._flight is not None
        assert self.subscriber.answer(self.subscriber._flight[0], rejected)


def test_a_cold_gateway_gets_everything() -> None:
    play = Play("ab")
    assert play.says() == (["a", "b"], [])
    assert not play.current()
    play.ack()
    assert play.current()
    assert play.next() is None


def test_the_first_update_comes_even_if_empty() -> None:
    play = Play()
    assert play.says() == ([], [])
    play.ack()
    assert play.next() is None


def test_a_gateway_that_resumes_gets_what_differs() -> None:
    table = Play("abc").table
    versions = {name: table.version(name) for name in table}
    play = Play("ab", held={**versions, "key/a": "other"})
    assert play.says() == (["a"], ["c"])


def test_one_update_is_in_flight_and_later_changes_merge() -> None:
    play = Play("a")
    play.says()
    play.put("b")
    play.put("b", "newer")
    play.put("c")
    play.drop("c")
    play.drop("a")
    assert play.next() is None
    play.ack()
    assert play.says() == (["b"], ["a"])
    play.ack()
    assert play.next() is None


def test_a_change_that_was_taken_back_is_not_sent() -> None:
    play = Play("a")
    play.says()
    play.ack()
    play.put("a", "x")
    play.put("a")
    assert play.next() is None


def test_what_was_refused_is_not_sent_again_until_it_is_another() -> None:
    play = Play("ab")
    play.says()
    play.ack("cannot read b")
    assert play.rejected() == "cannot read b"
    assert not play.current()
    assert play.next() is None
    play.put("c")
    assert play.says() == (["c"], [])
    play.ack()
    assert play.rejected() is None
    assert not play.current(), "a and b are still missing"
    play.put("b", "mended")
    assert play.says() == (["b"], [])
    play.ack()
    play.put("b")
    assert play.says() == (["b"], [])
    play.put("a", "mended")
    play.ack()
    assert play.says() == (["a"], [])
    play.ack()
    assert play.current()


def test_a_refused_removal() -> None:
    play = Play("a")
    play.says()
    play.ack()
    play.drop("a")
    assert play.says() == ([], ["a"])
    play.ack("still in use")
    assert play.next() is None
    play.put("a")
    assert play.next() is None, "it holds that already"
    assert play.current()


def test_answers_to_nothing_are_passed_over() -> None:
    play = Play("a")
    assert not play.subscriber.answer("1", None)
    play.says()
    assert not play.subscriber.answer("other", "no")
    assert play.rejected() is None


def test_withholding() -> None:
    def everything(name: str, resource: Resource | None) -> bool:
        return True

    play = Play("a", held={"key/a": "other", "key/b": "old"})
    play.put("c")
    update = play.subscriber.next(play.table, everything)
    assert update is not None
    # What the gateway lacks cannot be taken from it.
    assert ([r.name for r in update.changed], update.removed) == (["key/c"], ())
    play.ack()
    assert play.subscriber.next(play.table, everything) is None
    play.subscriber.release()
    assert play.says() == (["a"], ["b"])
