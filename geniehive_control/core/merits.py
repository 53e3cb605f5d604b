"""What is known of how well endpoints do: speeds, times, benchmarks; and the terms of a score that follow."""

from collections.abc import Iterable, Mapping

from geniehive.rules.model import BenchmarkSample, OffloadHint, Role, ScoreTerm, Speed, TierEndpoint
from geniehive_control.core import scoring
from geniehive_control.core.defaults import Weights
from geniehive_control.core.facts import Facts
from geniehive_control.core.scoring import Runtime


class Merits:
    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._speeds: dict[str, Speed] = {}
        self._latencies: dict[str, float] = {}
        # By service and asset_id: the newest of each workload.
        self._samples: dict[tuple[str, str], tuple[BenchmarkSample, ...]] = {}
        # By endpoint.
        self.hints: dict[str, OffloadHint] = {}
        # By endpoint, then by role and facts: weights that were made, until something else is known.
        self._weighed: dict[str, dict[tuple[str, Facts], TierEndpoint]] = {}

    def speed(self, endpoint: str) -> Speed | None:
        return self._speeds.get(endpoint)

    def put_speed(self, endpoint: str, speed: Speed | None) -> bool:
        """Whether it is another one."""
        if self._speeds.get(endpoint) == speed:
            return False
        self._weighed.pop(endpoint, None)
        if speed is None:
            del self._speeds[endpoint]
        else:
            self._speeds[endpoint] = speed
        return True

    def put_latency(self, endpoint: str, seconds: float | None) -> bool:
        if self._latencies.get(endpoint) == seconds:
            return False
        self._weighed.pop(endpoint, None)
        if seconds is None:
            del self._latencies[endpoint]
        else:
            self._latencies[endpoint] = seconds
        return True

    def put_samples(self, service: str, asset_id: str, samples: Iterable[BenchmarkSample]) -> bool:
        # In one order, whatever order they come in.
        now = tuple(sorted(samples, key=lambda sample: sample.workload))
        if self._samples.get((service, asset_id), ()) == now:
            return False
        self._weighed.clear()
        if now:
            self._samples[service, asset_id] = now
        else:
            del self._samples[service, asset_id]
        return True

    def samples(self, service: str, asset_id: str) -> tuple[BenchmarkSample, ...]:
        return self._samples.get((service, asset_id), ())

    def workloads(self) -> set[str]:
        """Those that something was measured by."""
        return {sample.workload for samples in self._samples.values() for sample in samples}

    def measured(self) -> Mapping[tuple[str, str], tuple[BenchmarkSample, ...]]:
        return self._samples

    def hint(self, endpoint: str, service: str, asset_id: str) -> bool:
        """Brings an endpoint's hint up to date. Whether it is another one."""
        speed = self._speeds.get(endpoint)
        if speed is None and not self._samples and endpoint not in self.hints:
            return False
        now = scoring.hint(self.samples(service, asset_id), speed)
        if now == self.hints.get(endpoint):
            return False
        if now is None:
            del self.hints[endpoint]
        else:
            self.hints[endpoint] = now
        return True

    def drop(self, endpoint: str) -> None:
        """There is no such endpoint for now. What was learned of it stays until it is said to be forgotten."""
        self.hints.pop(endpoint, None)

    def forget_host(self, host_id: str) -> None:
        """Its benchmarks are gone with it."""
        for key in [key for key in self._samples if key[0].partition("/")[0] == host_id]:
            del self._samples[key]
        self._weighed.clear()

    def reweigh(self, endpoint: str) -> None:
        """It is another one than it was."""
        self._weighed.pop(endpoint, None)

    def reweigh_all(self) -> None:
        """Roles are others."""
        self._weighed.clear()

    def runtime(self, endpoint: str, asset_id: str, facts: Facts) -> Runtime:
        """What changes slowly of it."""
        speed = self._speeds.get(endpoint)
        rate = None if speed is None else speed.decode_tokens_per_second
        if rate is None and self._samples:
            rates = [s.decode_tokens_per_second for s in self.samples(service_of(endpoint), asset_id)]
            rate = max((found for found in rates if found is not None), default=None)
        return Runtime(loaded=facts.loaded, p50_seconds=self._latencies.get(endpoint), tokens_per_second=rate)

    def terms(self, endpoint: str, asset_id: str, facts: Facts, role: Role | None) -> tuple[ScoreTerm, ...]:
        """Without a task: what an endpoint is worth to this role, or to whoever names it."""
        weights = self._weights
        runtime = self.runtime(endpoint, asset_id, facts)
        samples = self.samples(service_of(endpoint), asset_id) if self._samples else ()
        if role is None:
            return (
                scoring.runtime(weights.service_runtime, runtime),
                scoring.benchmark(weights.service_benchmark, samples),
            )
        return (
            scoring.runtime(weights.role_runtime, runtime),
            scoring.benchmark(weights.role_benchmark, samples),
            scoring.family(weights.role_family, role.routing_policy, facts),
        )

    def weigh(self, endpoint: str, asset_id: str, facts: Facts, role: Role | None) -> TierEndpoint:
        known = self._weighed.setdefault(endpoint, {})
        key = ("" if role is None else role.role_id, facts)
        found = known.get(key)
        if found is None:
            weight, reason = scoring.weight(self.terms(endpoint, asset_id, facts, role))
            found = known[key] = TierEndpoint(endpoint=endpoint, weight=weight, reason=reason)
        return found


def service_of(endpoint: str) -> str:
    """ "endpoint/gpu-1/ollama/qwen3:8b" -> "gpu-1/ollama"."""
    _, host_id, service_id, _ = endpoint.split("/", 3)
    return f"{host_id}/{service_id}"
