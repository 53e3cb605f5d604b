"""One name for one model, however services spell it.

Models are the same if their names say the same family, size and variant, or if their weights have the same digest. Of
quantisations that are known and differ in bits, those that most spellings have (the smaller one of two) get the plain
name, "qwen3-8b", together with those of which it is not known; the others are named with theirs, "qwen3-8b-q8". So a
plain name that is there stays there, whatever comes.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Member(NamedTuple):
    """A model as services call it. model, bits: as of `families.Identity`. digest: "" if not known."""

    asset_id: str
    model: str
    bits: int | None = None
    digest: str = ""


def join(members: Iterable[Member]) -> dict[str, tuple[str, ...]]:
    """The names under which two asset_ids or more are joined, and these."""
    models = _by_model(members)
    found: dict[str, tuple[str, ...]] = {}
    for model, alike in models.items():
        for name, asset_ids in _named(model, alike):
            if len(asset_ids) > 1:
                found[name] = tuple(sorted(asset_ids))
    return found


def _by_model(members: Iterable[Member]) -> dict[str, set[Member]]:
    """Who shares a digest goes with the other wherever that one goes."""
    models: dict[str, set[Member]] = {}
    by_digest: dict[str, tuple[set[str], set[Member]]] = {}
    for member in members:
        if member.model:
            models.setdefault(member.model, set()).add(member)
        if member.digest:
            called, same = by_digest.setdefault(member.digest, (set(), set()))
            same.add(member)
            if member.model:
                called.add(member.model)
    for called, same in by_digest.values():
        for model in called:
            models[model] |= same
    return models


def _named(model: str, alike: Iterable[Member]) -> Iterable[tuple[str, set[str]]]:
    by_bits: dict[int | None, set[str]] = {}
    for member in alike:
        by_bits.setdefault(member.bits, set()).add(member.asset_id)
    unknown = by_bits.pop(None, set())
    plain = min(by_bits, key=lambda bits: (-len(by_bits[bits]), bits or 0), default=None)
    yield model, unknown | by_bits.get(plain, set())
    for bits, asset_ids in by_bits.items():
        if bits != plain:
            yield f"{model}-{'f' if bits in (16, 32) else 'q'}{bits}", asset_ids


def differing(before: Mapping[str, tuple[str, ...]], now: Mapping[str, tuple[str, ...]]) -> set[str]:
    """The names that mean something else now."""
    return {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
