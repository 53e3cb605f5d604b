"""What a request is like, as far as it matters for who is asked."""

import msgspec

# Bytes of a prompt's beginning that one hash of `Ask.blocks` covers, and tokens that these are taken for.
BLOCK_BYTES = 1024
BLOCK_TOKENS = 256
# Hashes that are looked at: what is the same beyond them is not seen.
MOST_BLOCKS = 64


class Ask(msgspec.Struct, frozen=True, gc=False):
    """route: what output lengths are learned for. prompt_tokens: an estimate. conversation: hash of what the client
    calls its session by; None: it does not. blocks: chained hashes of the prompt's beginning, each of it up to there:
    two prompts with an equal one are equal that far; () if not known. stream: the answer comes in pieces, so that its
    first one tells when the prompt had been read.
    """

    route: str = ""
    prompt_tokens: int = 0
    conversation: int | None = None
    blocks: tuple[int, ...] = ()
    tools: bool = False
    images: bool = False
    max_tokens: int | None = None
    stream: bool = True
