"""What is learned of endpoints goes into the table: by gateways' reports, by benchmarks, from before a restart."""

from collections.abc import Callable, Iterable, Sequence

from geniehive.rules import names
from geniehive.rules.model import BenchmarkSample, Service
from geniehive_control.core.effects import Changed, Effect
from geniehive_control.core.events import Now, OutcomesReported
from geniehive_control.core.figures import Changes, EndpointOutcomes, Figures
from geniehive_control.core.table import Table

# Seconds that a model may be away, and be as fast as it was when it is back.
FORGOTTEN = 3600.0


class Learning:
    """service: that of a name. Resources that become other than they were are added to `changed`."""

    def __init__(
        self,
        figures: Figures,
        table: Table,
        service: Callable[[str], Service | None],
        changed: Callable[[set[str]], None],
    ) -> None:
        self._figures = figures
        self._table = table
        self._service = service
        self._changed = changed
        # Endpoints that the table lacks, and since when.
        self._missing: dict[str, float] = {}

    def restore(self, rows: Iterable[EndpointOutcomes], samples: Iterable[BenchmarkSample], now: Now) -> None:
        """What is stored."""
        self._put(self._figures.restore(self._known(rows), now.mono))
        self.benchmarked(sorted(samples, key=lambda sample: sample.measured), now)

    def reported(self, event: OutcomesReported, now: Now) -> list[Effect]:
        return self._put(self._figures.take(self._known(event.rows), now.mono))

    def benchmarked(self, samples: Iterable[BenchmarkSample], now: Now) -> list[Effect]:
        """Oldest first."""
        effects: list[Effect] = []
        for sample in samples:
            prefill, decode = sample.prefill_tokens_per_second, sample.decode_tokens_per_second
            service = self._service(sample.service)
            if service is None or (prefill is None and decode is None):
                continue
            for asset in service.assets:
                if asset.asset_id == sample.asset_id:
                    endpoint = names.endpoint_resource(service.service, asset.upstream_name)
                    effects += self._put(self._figures.benchmarked(endpoint, prefill, decode, now.mono))
        return effects

    def forget(self, host_id: str) -> None:
        """An operator forgot the host: under this name another may come."""
        for endpoint in [e for e in self._figures if e.startswith(f"endpoint/{host_id}/")]:
            self._forget(endpoint)

    def settle(self, now: Now) -> list[Effect]:
        """To be called about once a minute."""
        missing = {e: self._missing.get(e, now.mono) for e in self._figures if e not in self._table}
        for endpoint in [e for e, since in missing.items() if since + FORGOTTEN <= now.mono]:
            del missing[endpoint]
            self._forget(endpoint)
        self._missing = missing
        return self._put(self._figures.settle(now.mono))

    def _forget(self, endpoint: str) -> None:
        self._figures.forget(endpoint)
        self._changed(self._table.put_speed(endpoint, None))
        self._table.put_latency(endpoint, None)

    def _known(self, rows: Iterable[EndpointOutcomes]) -> Sequence[EndpointOutcomes]:
        return [row for row in rows if row.endpoint in self._table]

    def _put(self, changes: Changes) -> list[Effect]:
        for endpoint, seconds in changes.latencies.items():
            self._table.put_latency(endpoint, seconds)
        for model, tokens in changes.expected.items():
            self._table.put_expected(model, tokens)
        services = set()
        for endpoint, speed in changes.speeds.items():
            self._changed(self._table.put_speed(endpoint, speed))
            services.add("/".join(endpoint.split("/", 3)[1:3]))
        return [Changed(services=frozenset(services))] if services else []
