"""One stream of a gateway's reports, between messages and `geniehive_control.usage`."""

import secrets
from collections.abc import Iterable

from geniehive.rules.histogram import BOUNDS
from geniehive.v1 import routing_service_pb2 as pb
from geniehive.v1 import usage_pb2
from geniehive_control.core.refusal import Refusal, Why
from geniehive_control.core.trust import Certified
from geniehive_control.core.usage import COUNTS, SECONDS, Key, Who, count, histogram, span, text
from geniehive_control.hub import Hub
from geniehive_control.mailbox import Mailbox
from geniehive_control.rpc.views import duration
from geniehive_control.usage import Usage

_LONGEST = 256
# Far beyond what a gateway sends: it makes several reports of more.
_MOST_ROWS = 20_000


class Reports:
    """certificate: by which the gateway proved itself; None: by a node key."""

    def __init__(self, hub: Hub, usage: Usage, certificate: Certified | None) -> None:
        self.stream_id = secrets.token_hex(8)
        self._hub = hub
        self._usage = usage
        self._certificate = certificate

    def first_words(self) -> pb.ReportOutcomesResponse:
        return pb.ReportOutcomesResponse(
            report_interval=duration(self._usage.interval), histogram_bounds_seconds=BOUNDS
        )

    def accepted(self, sequence: int) -> Iterable[pb.ReportOutcomesResponse]:
        return (pb.ReportOutcomesResponse(accepted=sequence),)

    def take(self, box: Mailbox[int], message: pb.ReportOutcomesRequest) -> None:
        """Refusal: TOO_MUCH, CONTROL_UNAVAILABLE; NOT_YOURS, CREDENTIAL_REVOKED."""
        who = self._who(message)
        report = message.report
        if len(report.rows) > _MOST_ROWS:
            raise Refusal(Why.TOO_MUCH, f"a report of {len(report.rows)} rows; make several of it")
        interval = message.interval.ToNanoseconds() / 1e9
        hour = self._usage.hour(interval)
        # Beyond 64 bits with a sign there is nothing that a database could count.
        sequence = min(message.sequence, 2**63 - 1)
        self._usage.take(self.stream_id, box, who, sequence, [_row(row, hour) for row in report.rows])
        routes: dict[tuple[str, int], tuple[int, int]] = {
            (load.model, load.operation): (load.in_flight, load.waiting) for load in report.routes
        }
        self._usage.show(self.stream_id, who, interval, routes, tuple(sorted(report.ejected_endpoints)))

    def _who(self, message: pb.ReportOutcomesRequest) -> Who:
        if self._certificate is not None:
            # The stream may be older than its revocation.
            self._hub.registry.trust.check(self._certificate, self._hub.now().wall)
            if message.gateway_id != self._certificate.peer_id:
                speaks = f"this certificate speaks for gateway {self._certificate.peer_id!r}"
                raise Refusal(Why.NOT_YOURS, f"{speaks}, not for {message.gateway_id[:_LONGEST]!r}")
        if max(len(message.gateway_id), len(message.instance_id)) > _LONGEST:
            raise Refusal(Why.TOO_MUCH, f"gateway_id or instance_id is longer than {_LONGEST} characters")
        return text(message.gateway_id), text(message.instance_id)


def _row(row: usage_pb2.OutcomeRow, hour: int) -> tuple[Key, list[float]]:
    key = Key(hour, text(row.key_id), text(row.model), row.operation, text(row.endpoint), text(row.route_label))
    sums = row.outcomes
    numbers: list[float] = [count(getattr(sums, name)) for name in COUNTS]
    numbers += [span(getattr(sums, name)) for name in SECONDS]
    numbers += histogram(sums.first_token.upper_bounds_seconds, sums.first_token.counts)
    numbers += histogram(sums.duration.upper_bounds_seconds, sums.duration.counts)
    return key, numbers
