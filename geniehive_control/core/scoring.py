"""How good a match is: the terms of a score, each with what it was computed from and why, in words.

A score is the sum of weight times value over its terms. Every value is between 0 and 1, and so is the score. Here alone
stand the figures of it: `matching`, `explaining` and the weights in tiers all ask here.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from geniehive.rules.families import called, within
from geniehive.rules.model import BenchmarkSample, OffloadHint, RoutingPolicy, ScoreTerm, Speed, Value
from geniehive_control.core.facts import Facts

_WORDS = re.compile(r"[^\W_]+")
# Seconds below which a median answer is worth so much; and what it is worth above all.
_LATENCIES = ((0.5, 0.30), (1.5, 0.20), (3.0, 0.10))
_SLOW = 0.05
_TOKEN_RATES = ((40.0, 0.20), (20.0, 0.10))
_QUEUES = ((5, 0.20), (2, 0.10))
_LOADED, _BUSY = 0.35, 0.10
_OVERLAP, _QUALITY = 0.45, 0.55
_CORRECTNESS, _SPEED = 0.65, 0.35
# Tokens per second that are as good as any more, and seconds until the first token that are worth nothing.
_FAST, _LATE = 40.0, 5.0
# What each preferred label adds to the family's part, and what a role without preferred families thinks of any.
_LABEL, _ANY_FAMILY = 0.25, 0.5


class Runtime(Value, frozen=True, kw_only=True):
    """How an endpoint runs. None: not known. queued, busy: of the moment; not in weights, which are to rest."""

    loaded: bool | None = None
    p50_seconds: float | None = None
    tokens_per_second: float | None = None
    queued: int | None = None
    busy: bool = False


def words(texts: Iterable[str]) -> frozenset[str]:
    return frozenset(word for text in texts for word in _WORDS.findall(text.casefold()))


def score(terms: Iterable[ScoreTerm]) -> float:
    return sum(term.weight * term.value for term in terms)


def text(weight: float, asked: Collection[str], own: Collection[str]) -> ScoreTerm:
    """The share of asked words that are a candidate's."""
    if not asked:
        return ScoreTerm(name="text", weight=weight, value=0.0, reasons=("no task to compare with",))
    shared = sorted(set(asked) & set(own))
    named = f": {', '.join(shared[:10])}" if shared else ""
    return ScoreTerm(
        name="text",
        weight=weight,
        value=len(shared) / len(asked),
        signals={"task_words": float(len(asked)), "shared_words": float(len(shared))},
        reasons=(f"{len(shared)} of the task's {len(asked)} words{named}",),
    )


def runtime(weight: float, found: Runtime | None) -> ScoreTerm:
    """None: there is no usable endpoint."""
    if found is None:
        return ScoreTerm(name="runtime", weight=weight, value=0.0, reasons=("no usable endpoint",))
    value = 0.0
    signals: dict[str, float] = {}
    reasons: list[str] = []
    if found.loaded is not None:
        signals["loaded"] = float(found.loaded)
        value += _LOADED * found.loaded
        reasons.append("in memory" if found.loaded else "not in memory")
    if found.p50_seconds is not None:
        signals["p50_latency_seconds"] = found.p50_seconds
        value += next((worth for limit, worth in _LATENCIES if found.p50_seconds < limit), _SLOW)
        reasons.append(f"median answer {found.p50_seconds:g} s")
    if found.tokens_per_second is not None:
        signals["tokens_per_second"] = found.tokens_per_second
        value += next((worth for limit, worth in _TOKEN_RATES if found.tokens_per_second >= limit), 0.0)
        reasons.append(f"{found.tokens_per_second:g} tok/s")
    if found.queued is not None:
        signals["queued"] = float(found.queued)
        if worth := next((worth for limit, worth in _QUEUES if found.queued >= limit), 0.0):
            value -= worth
            reasons.append(f"{found.queued} waiting")
    if found.busy:
        signals["busy"] = 1.0
        value -= _BUSY
        reasons.append("busy")
    value = min(1.0, max(0.0, value))
    return ScoreTerm(
        name="runtime", weight=weight, value=value, signals=signals, reasons=tuple(reasons) or ("nothing is known yet",)
    )


def is_of(sample: BenchmarkSample, workload: str) -> bool:
    """workload: with its version, or any of it: "chat.short_reasoning"."""
    return workload in (sample.workload, sample.workload.rpartition("/")[0])


def benchmark(weight: float, samples: Sequence[BenchmarkSample], workloads: Sequence[str] = ()) -> ScoreTerm:
    """samples: the newest of each workload. workloads: that were asked for; their samples alone count then."""
    asked = [s for s in samples if any(is_of(s, w) for w in workloads)] if workloads else list(samples)
    measured = quality(asked)
    if measured is None:
        return ScoreTerm(name="benchmark", weight=weight, value=0.0, reasons=("no benchmark",))
    signals = {"quality": measured}
    reasons = [f"quality {measured:.2f} by {', '.join(sorted(s.workload for s in asked)[:5])}"]
    overlap = 0.0
    if workloads:
        covered = sum(any(is_of(s, w) for s in asked) for w in workloads)
        overlap = covered / len(workloads)
        reasons.append(f"{covered} of {len(workloads)} workloads")
    signals["workload_overlap"] = overlap
    value = _OVERLAP * overlap + _QUALITY * measured
    return ScoreTerm(name="benchmark", weight=weight, value=value, signals=signals, reasons=tuple(reasons))


def quality(samples: Iterable[BenchmarkSample]) -> float | None:
    """The mean, by requests, of what each sample tells. None: nothing is told."""
    rated = [(found, max(1, s.request_count)) for s in samples if (found := _quality(s)) is not None]
    if not rated:
        return None
    # No sum of rounded products may leave the range of what it is a mean of.
    return min(1.0, max(0.0, sum(found * count for found, count in rated) / sum(count for _, count in rated)))


def _quality(sample: BenchmarkSample) -> float | None:
    speed: float | None = None
    if sample.decode_tokens_per_second is not None:
        speed = _share(sample.decode_tokens_per_second / _FAST)
    elif sample.first_token_seconds is not None:
        speed = _share(1.0 - sample.first_token_seconds / _LATE)
    if sample.correctness is None:
        return speed
    return sample.correctness if speed is None else _CORRECTNESS * sample.correctness + _SPEED * speed


def _share(value: float) -> float:
    return min(1.0, max(0.0, value))


def family(weight: float, policy: RoutingPolicy, facts: Facts | None) -> ScoreTerm:
    """How near an endpoint is to what a role prefers. None: there is none."""
    if facts is None:
        return ScoreTerm(name="family", weight=weight, value=0.0, reasons=("no usable endpoint",))
    preferred = policy.preferred_families
    place = rank(policy, facts)
    if not preferred:
        value, reasons = _ANY_FAMILY, ["any family will do"]
    elif place < len(preferred):
        value, reasons = 1.0 - place / len(preferred), [f"family {preferred[place]}, preferred as {place + 1}."]
    else:
        value, reasons = 0.0, [f"family {facts.family or 'not known'}, not preferred"]
    labels = [f"{name}={text}" for name, text in policy.preferred_labels.items() if (name, text) in facts.labels]
    if labels:
        reasons.append(f"label {', '.join(labels)}")
    return ScoreTerm(
        name="family",
        weight=weight,
        value=_share(value + _LABEL * len(labels)),
        signals={"labels": float(len(labels))} | ({"place": float(place)} if preferred else {}),
        reasons=tuple(reasons),
    )


def rank(policy: RoutingPolicy, facts: Facts) -> int:
    """The place of its family among those preferred; their number if it is none of them."""
    for place, wanted in enumerate(policy.preferred_families):
        if within(facts.family, wanted) or called(facts.name, wanted):
            return place
    return len(policy.preferred_families)


def weight(terms: Sequence[ScoreTerm]) -> tuple[int, str]:
    """For a tier, and why. In steps, so that it seldom changes."""
    reasons = [reason for term in terms for reason in term.reasons if term.value]
    return round(_share(score(terms)) * 100) * 10, "; ".join(reasons)


def hint(samples: Iterable[BenchmarkSample], speed: Speed | None) -> OffloadHint | None:
    """Whether simple subtasks do well there. None: nothing is known."""
    chats = sorted((s for s in samples if s.workload.startswith("chat")), key=lambda sample: sample.workload)
    found = quality(chats)
    rate = None if speed is None else speed.decode_tokens_per_second
    basis = [f"benchmark {sample.workload}" for sample in chats[:3]]
    if rate is not None:
        basis.append(f"{rate:g} tok/s")
    if found is None:
        if rate is None:
            return None
        found = _share(rate / _FAST)
    return OffloadHint(suitability=round(found * 20) / 20, basis=", ".join(basis))


def best_hint(hints: Mapping[str, OffloadHint], endpoints: Iterable[str]) -> OffloadHint | None:
    found = [hints[endpoint] for endpoint in endpoints if endpoint in hints]
    return max(found, key=lambda hint: (hint.suitability, hint.basis), default=None)
