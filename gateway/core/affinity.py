"""Which prompts an engine probably still has in its cache: its latest conversations, as many as it has slots."""

from collections import OrderedDict
from typing import NamedTuple

from gateway.core.asking import BLOCK_TOKENS, Ask

# Conversations that are remembered of one engine at most, however many it runs at once.
MOST = 128


class _Held(NamedTuple):
    tokens: int
    blocks: tuple[int, ...]


class Memory:
    """The conversations of one engine, the latest last. Bounded by `slots`, and by MOST.

    model: an engine's models have caches of their own, and share its slots. Requests that belong to no conversation
    push others out as well: they take a slot like any other.
    """

    __slots__ = ("_blocks", "_nameless", "_slots", "held")

    def __init__(self, slots: int) -> None:
        self._slots = min(slots, MOST)
        # Nothing is a hit while this is empty.
        self.held: OrderedDict[object, _Held] = OrderedDict()
        # Of each block the tokens up to its end, and how many have it.
        self._blocks: dict[tuple[str, int], int] = {}
        self._nameless = 0

    def __len__(self) -> int:
        return len(self.held)

    def resize(self, slots: int) -> None:
        self._slots = min(slots, MOST)
        self._shrink()

    def hit(self, model: str, ask: Ask) -> int:
        """Tokens of the prompt that need not be read again, as far as is known."""
        if not self.held:
            return 0
        if ask.conversation is not None:
            held = self.held.get((model, ask.conversation))
            if held is not None:
                tokens, before = held
                asked = ask.blocks
                # If all of what was sent is there again, the answer to it will be there, too.
                if before and asked and (len(asked) < len(before) or asked[len(before) - 1] != before[-1]):
                    tokens = _same(before, asked) * BLOCK_TOKENS
                most = ask.prompt_tokens - 1
                return tokens if tokens < most else most if most > 0 else 0
        blocks = ask.blocks
        if not blocks or (model, blocks[0]) not in self._blocks:
            return 0
        # Blocks are chained: whoever has one has all before it.
        low, high = 1, len(blocks)
        while low < high:
            middle = (low + high + 1) // 2
            if (model, blocks[middle - 1]) in self._blocks:
                low = middle
            else:
                high = middle - 1
        return max(0, min(low * BLOCK_TOKENS, ask.prompt_tokens - 1))

    def sent(self, model: str, ask: Ask) -> object:
        """The request goes there. Gives what to call it by once it was answered; None: nothing would be remembered."""
        if ask.conversation is None and not ask.blocks:
            if self.held:
                self._nameless += 1
                self.held[self._nameless] = _Held(0, ())
                self._shrink()
            return None
        if ask.conversation is not None:
            key: object = (model, ask.conversation)
        else:
            # The longest beginning names it: the same prompt again is the same.
            key = (model, ask.blocks)
        self._forget(key)
        self.held[key] = _Held(ask.prompt_tokens, ask.blocks)
        for block in ask.blocks:
            self._blocks[model, block] = self._blocks.get((model, block), 0) + 1
        self._shrink()
        return key

    def answered(self, key: object, tokens: int) -> None:
        """So many tokens are in the cache by now: the prompt's and the answer's."""
        held = self.held.get(key)
        if held is not None:
            self.held[key] = held._replace(tokens=tokens)

    def _shrink(self) -> None:
        while len(self.held) > self._slots:
            self._forget(next(iter(self.held)))

    def _forget(self, key: object) -> None:
        held = self.held.pop(key, None)
        if held is None or not held.blocks:
            return
        assert isinstance(key, tuple)
        model = key[0]
        for block in held.blocks:
            count = self._blocks[model, block] - 1
            if count:
                self._blocks[model, block] = count
            else:
                del self._blocks[model, block]


def _same(held: tuple[int, ...], asked: tuple[int, ...]) -> int:
    """How many blocks both begin with. They are chained, so that one equal block means that all before it are."""
    low, high = 0, min(len(held), len(asked))
    while low < high:
        middle = (low + high + 1) // 2
        if held[middle - 1] == asked[middle - 1]:
            low = middle
        else:
            high = middle - 1
    return low
