"""What was measured of models: which samples are taken, and the newest of each service, model and workload.

Older ones are in the database alone.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import isfinite

import msgspec

from geniehive.rules import names
from geniehive.rules.model import BenchmarkSample, Service
from geniehive_control.core.refusal import Refusal, field_invalid

# Of one call.
MOST_SAMPLES = 1000
# Stored of each service, model and workload; the oldest are dropped.
MOST_KEPT = 100

_WORKLOAD = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}/[0-9]{1,6}\Z")
_LONGEST_ID = 128
# The clocks of those who measure need not agree with control's.
_LONGEST_SKEW = 300.0
# What nobody measures, and a sum of it would still be a number.
_MOST = 1e9

# What a sample is one of many of: service, asset_id, workload.
Series = tuple[str, str, str]


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Samples, newest first; of these `limit`, after `offset`. "": any."""

    service: str = ""
    asset_id: str = ""
    workload: str = ""
    limit: int
    offset: int = 0


def series(sample: BenchmarkSample) -> Series:
    return sample.service, sample.asset_id, sample.workload


def _age(sample: BenchmarkSample) -> tuple[float, str]:
    """What samples of one series are ordered by; of two of the same moment one counts, always the same."""
    return sample.measured, sample.sample_id


def check(sample: BenchmarkSample, service: Callable[[str], Service | None], wall: float) -> None:
    """service: that of a name. wall: seconds since the epoch. Refusal: FIELD_INVALID."""
    if not names.is_model_name(sample.sample_id) or len(sample.sample_id) > _LONGEST_ID:
        raise field_invalid("sample_id", f"must have 1 to {_LONGEST_ID} characters, and no control characters")
    found = service(sample.service)
    if found is None:
        raise field_invalid("service", f"there is no service {sample.service[:_LONGEST_ID]!r}")
    if not any(asset.asset_id == sample.asset_id for asset in found.assets):
        raise field_invalid("asset_id", f"{sample.service} has no model {sample.asset_id[:_LONGEST_ID]!r}")
    if _WORKLOAD.match(sample.workload) is None:
        raise field_invalid(
            "workload", f'{sample.workload[:80]!r} is no workload with its version, such as "chat.short_reasoning/1"'
        )
    if sample.request_count < 1:
        raise field_invalid("request_count", "must be 1 or more")
    # A time that was not given is 0.
    if not isfinite(sample.measured) or sample.measured < 1.0:
        raise field_invalid("measure_time", "must be given")
    if sample.measured > wall + _LONGEST_SKEW:
        raise field_invalid("measure_time", "is in the future; is the clock right where it was measured?")
    _check_figures(sample)


def _check_figures(sample: BenchmarkSample) -> None:
    share = sample.correctness
    if share is not None and not 0.0 <= share <= 1.0:
        raise field_invalid("correctness", "must lie between 0 and 1")
    figures = [
        (name, getattr(sample, name))
        for name in ("first_token_seconds", "prefill_tokens_per_second", "decode_tokens_per_second")
    ]
    for name, figure in figures:
        if figure is not None and not 0.0 < figure <= _MOST:
            raise field_invalid(name, "must be a number greater than 0, and finite; leave it out if it is not known")
    if share is None and all(figure is None for _, figure in figures):
        raise field_invalid("correctness", "nothing was measured: give at least one figure")


def judge(
    samples: Sequence[BenchmarkSample], service: Callable[[str], Service | None], wall: float
) -> list[Refusal | None]:
    """Why each is not taken; None: it is. Refusal: FIELD_INVALID if they are too many."""
    if len(samples) > MOST_SAMPLES:
        raise field_invalid("samples", f"are {len(samples)}; at most {MOST_SAMPLES} may come at once")
    found: list[Refusal | None] = []
    for sample in samples:
        try:
            check(sample, service, wall)
            found.append(None)
        except Refusal as refusal:
            found.append(refusal)
    return found


class Benchmarks:
    """The newest sample of each service, model and workload."""

    def __init__(self, stored: Iterable[BenchmarkSample] = ()) -> None:
        # By service and asset_id, then by workload.
        self._newest: dict[tuple[str, str], dict[str, BenchmarkSample]] = {}
        self._by_id: dict[str, BenchmarkSample] = {}
        for sample in stored:
            self.take(sample)

    def __iter__(self) -> Iterator[BenchmarkSample]:
        return iter(self._by_id.values())

    def get(self, sample_id: str) -> BenchmarkSample | None:
        """None: there is none, or a newer one."""
        return self._by_id.get(sample_id)

    def newest(self, service: str, asset_id: str) -> tuple[BenchmarkSample, ...]:
        """One for each workload."""
        return tuple(self._newest.get((service, asset_id), {}).values())

    def take(self, sample: BenchmarkSample) -> frozenset[str]:
        """A sample that is stored. The ids of those that came or went by it; empty if a newer one is known."""
        held = self._newest.setdefault((sample.service, sample.asset_id), {})
        before = held.get(sample.workload)
        if before is not None and _age(before) >= _age(sample):
            return frozenset()
        held[sample.workload] = sample
        self._by_id[sample.sample_id] = sample
        if before is None:
            return frozenset({sample.sample_id})
        del self._by_id[before.sample_id]
        return frozenset({before.sample_id, sample.sample_id})

    def forget_host(self, host_id: str) -> frozenset[str]:
        """The host is gone. The ids of what is gone with it."""
        gone = [key for key in self._newest if key[0].partition("/")[0] == host_id]
        ids = {sample.sample_id for key in gone for sample in self._newest.pop(key).values()}
        for sample_id in ids:
            del self._by_id[sample_id]
        return frozenset(ids)
