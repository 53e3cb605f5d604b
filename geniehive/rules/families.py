"""What a model's name says of it: family, size, variant and quantisation, from any of the usual spellings.

"qwen3:8b", "Qwen/Qwen3-8B" and "Qwen3-8B-Q5_K_M.gguf" are one model. Engines name families in their own ways and
coarsely ("llama" for Llama 3.2), so that a name that says more counts before their word.
"""

import re
from functools import lru_cache

from geniehive.rules.model import Asset, Value

_FILE = re.compile(r"(?:-\d{5}-of-\d{5})?\.(?:gguf|ggml|safetensors|bin)\Z")
# "model.Q4_K_M" as well as "model-Q4_K_M".
_DOTTED_QUANT = re.compile(r"\.(?=i?q\d|[bf]?f?16\b)")
_SIZE = re.compile(r"e?(?:\d+x)?\d+(?:\.\d+)?[bm]\Z")
_VERSION = re.compile(r"\d{1,2}(?:\.\d+)?[a-z]?\Z")
_QUANT = re.compile(
    r"(?:i?q\d(?:_[0-9a-z]+)*|tq\d_\d|bf16|f16|f32|fp(?:4|8|16|32)|int[348]|[3468]bit|w\da\d+|mxfp\d|nvfp4"
    r"|awq|gptq|bnb|exl[23])\Z"
)
# What follows in "Q4-K-M".
_QUANT_REST = frozenset({"0", "1", "k", "s", "m", "l", "xl"})
# Tells nothing of the weights.
_DECORATION = frozenset({"gguf", "ggml", "mlx", "latest", "hf", "ud", "imat", "i1", "onnx", "dynamic", "meta"})
_TUNED = frozenset({"instruct", "it", "chat"})
_BARE = frozenset({"base", "pt"})
# Families whose makers' plain names, without "instruct", are of models that were not tuned to answer. Ollama's plain
# names are of tuned ones in these families, too.
_PLAIN_IS_BARE = ("llama", "codellama", "qwen1.5", "qwen2", "gemma", "mistral", "mixtral", "falcon", "smollm", "olmo")
# First words of names that are families; of other names an engine's word counts.
_KNOWN = re.compile(
    r"(?:qwen|llama|codellama|gemma|mistral|mixtral|ministral|magistral|devstral|codestral|phi|gpt|deepseek|granite"
    r"|nomic|smollm|falcon|olmo|glm|chatglm|command|starcoder|whisper|bge|minicpm|llava|kimi|nemotron|exaone|lfm"
    r"|claude|gemini|qwq|internlm|yi)(?![a-z])"
)
_TWO_WORDS = frozenset({("gpt", "oss"), ("command", "r")})
# Engines' words for families, where they are others than the names'.
_WORDS = {"gptoss": "gpt-oss", "qwen35": "qwen3.5", "qwen35moe": "qwen3.5moe", "unknown": ""}


class Identity(Value, frozen=True, kw_only=True):
    """model: family, size and variant in one spelling ("qwen3-8b"); "" if the name has no size, for then nothing is
    known to be the same. quantization: "q4_k_m", "" if not known. bits: of its weights. name: family and all that
    follows in one spelling, whether there is a size or not ("qwen3-coder-30b", "nomic-embed-text").
    """

    family: str = ""
    size: str = ""
    model: str = ""
    quantization: str = ""
    bits: int | None = None
    name: str = ""


def identify(asset: Asset) -> Identity:
    return identify_name(asset.asset_id, asset.family, asset.quantization)


@lru_cache(maxsize=8192)
def identify_name(name: str, family: str = "", quantization: str = "") -> Identity:
    """family, quantization: an engine's words, "" if it has none."""
    words, quants, tuned = [], [], ""
    tokens = _tokens(name)
    for index, token in enumerate(tokens):
        if _QUANT.match(token) or (token in _QUANT_REST and index and _is_quant(tokens, index - 1)):
            quants.append(token)
        elif token in _BARE or token in _TUNED:
            tuned = "base" if token in _BARE else "chat" if token == "chat" else "instruct"
        elif token not in _DECORATION:
            words.append(token)
    own, rest = _family(words)
    size = next((word for word in rest if _SIZE.match(word)), "")
    quant = _WORDS.get(quantization.lower(), quantization.lower()) or "_".join(quants)
    model = "-".join(filter(None, (own, *rest, _tuning(name, own, tuned)))) if size else ""
    spoken = family.lower().strip()
    spoken = _WORDS.get(spoken, spoken)
    chosen = own if _KNOWN.match(own) or (size and not spoken) else spoken
    whole = "-".join((own, *rest))
    return Identity(family=chosen, size=size, model=model, quantization=quant, bits=bits(quant), name=whole)


@lru_cache(maxsize=4096)
def within(family: str, wanted: str) -> bool:
    """Whether a family is the one that somebody wants, or of it: "qwen3.5" is of "qwen3" and of "Qwen"."""
    found, whole = _plain(family), _plain("-".join(filter(None, _spelled(wanted))))
    if not whole or not found.startswith(whole):
        return False
    following = found[len(whole) : len(whole) + 1]
    if whole[-1].isdigit():
        return not following.isdigit()
    return not following.isalpha()


def called(name: str, wanted: str) -> bool:
    """Whether a model's name begins with what somebody wants: "qwen3-coder-30b" with "Qwen3-Coder"."""
    whole = "-".join(filter(None, _spelled(wanted)))
    return bool(whole) and (f"{name}-".startswith(f"{whole}-") or within(name, wanted))


def bits(quantization: str) -> int | None:
    """Of each weight, about. None: not known."""
    if found := re.search(r"q(\d)|int(\d)|(\d)bit|w(\d)a|fp(4|8)", quantization):
        return int(next(filter(None, found.groups())))
    if found := re.search(r"f(?:p)?(16|32)", quantization):
        return int(found[1])
    return 4 if re.search(r"awq|gptq|bnb", quantization) else None


def _tokens(name: str) -> list[str]:
    last = _FILE.sub("", name.lower().strip().rsplit("/", 1)[-1])
    return [token for token in re.split(r"[-:@\s]+", _DOTTED_QUANT.sub("-", last)) if token]


def _is_quant(tokens: list[str], index: int) -> bool:
    while index >= 0 and tokens[index] in _QUANT_REST:
        index -= 1
    return index >= 0 and _QUANT.match(tokens[index]) is not None


def _family(words: list[str]) -> tuple[str, list[str]]:
    """The family that a name begins with, and the words after it."""
    if not words:
        return "", []
    if tuple(words[:2]) in _TWO_WORDS:
        return "-".join(words[:2]), words[2:]
    first, following = words[0], words[1] if len(words) > 1 else ""
    if first.isalpha() and _VERSION.match(following) and not _SIZE.match(following):
        return first + following, words[2:]
    return first, words[1:]


def _spelled(family: str) -> tuple[str, ...]:
    """A family as somebody writes it: "Llama 3.2" is "llama3.2"."""
    text = family.lower().strip()
    first, rest = _family(_tokens(_WORDS.get(text, text)))
    return first, *rest


def _tuning(name: str, own: str, tuned: str) -> str:
    """How the model was trained, by the name's words or by its silence, where there are two models of the rest."""
    if not own.startswith(_PLAIN_IS_BARE):
        return tuned
    from_ollama = ":" in name and not name.startswith(("hf.co/", "huggingface.co/"))
    return "base" if tuned == "base" or (not tuned and not from_ollama) else ""


def _plain(family: str) -> str:
    return family.replace("-", "").replace("_", "")
