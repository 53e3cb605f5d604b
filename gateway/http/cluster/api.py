"""The paths, and who may ask what."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from gateway.core import errors, keys
from gateway.core.errors import ApiError
from gateway.core.questions import Absent, Away, Forbidden, Inquiry, Wrong
from gateway.http.cluster import reading
from gateway.http.cluster.explain import Explain
from gateway.http.cluster.usage import AskUsage, UsageApi
from gateway.http.exchange import Refusal
from geniehive.kit.clock import Clock
from geniehive.rules.model import Scope

PREFIX = "/v1/cluster/"
# A thousand samples, or more tasks than control takes.
_MOST_BYTES = 2 * 1024 * 1024
_ENCODE = msgspec.json.encode

Ask = Callable[[Inquiry, str], Awaitable[dict[str, Any]]]
Answer = Callable[[str, bytes, str], Awaitable[bytes]]


class Asked(NamedTuple):
    """How one method of a path is answered. needed: any of these scopes. answer: by query (with its "?", or ""), body
    and the id of the client's key ("" where authentication is off). body: the most bytes of one; 0: it takes none.
    """

    needed: frozenset[Scope]
    answer: Answer
    body: int = 0


class ClusterApi:
    """ask, ask_usage: ask control, in the name of a key."""

    def __init__(self, ask: Ask, ask_usage: AskUsage, explain: Explain, clock: Clock) -> None:
        self._ask = ask
        self._explain = explain
        self._usage = UsageApi(ask_usage, clock)
        self._paths: Mapping[str, Mapping[str, Asked]] = {
            "usage": {"GET": Asked(keys.TO_READ, self._usage.answer)},
            "hosts": self._listing("ListHosts", "hosts", reading.HOSTS, labels=True),
            "services": self._listing("ListServices", "services", reading.SERVICES),
            "roles": self._listing("ListRoles", "roles"),
            "aliases": self._listing("ListAliases", "aliases"),
            "benchmarks": {
                **self._listing("ListBenchmarkSamples", "samples", reading.BENCHMARKS),
                "POST": Asked(keys.TO_OPERATE, self._record, _MOST_BYTES),
            },
            "health": {"GET": Asked(keys.TO_READ, self._health)},
            "routes/resolve": {"GET": Asked(keys.TO_READ, self._resolve)},
            "routes/match": {"POST": Asked(keys.TO_READ, self._match, _MOST_BYTES)},
            "routes/explain": {"POST": Asked(keys.TO_READ, self._why, _MOST_BYTES)},
        }

    def methods(self, path: str) -> Mapping[str, Asked] | None:
        """How each method of this path is answered; None if there is no such path."""
        return self._paths.get(path.removeprefix(PREFIX)) if path.startswith(PREFIX) else None

    async def answer(self, asked: Asked, query: str, body: bytes, key_id: str) -> bytes:
        """The answer's body. Refusal."""
        try:
            return await asked.answer(query, body, key_id)
        except Wrong as error:
            raise reading.bad(error.args[0]) from error
        except Absent as error:
            raise Refusal(ApiError(404, str(error), "not_found")) from error
        except Forbidden as error:
            raise Refusal(ApiError(403, str(error), "forbidden")) from error
        except Away as error:
            raise Refusal(errors.control_away(str(error), error.retry_after)) from error

    def _listing(
        self, call: str, field: str, filters: reading.Filters = reading.NO_FILTERS, labels: bool = False
    ) -> dict[str, Asked]:
        async def answer(query: str, body: bytes, key_id: str) -> bytes:
            del body
            found = await self._ask(Inquiry(call, reading.listing(query, filters, labels)), key_id)
            return _ENCODE({"object": "list", "data": found[field], "next_page": found["next_page_token"] or None})

        return {"GET": Asked(keys.TO_READ, answer)}

    async def _health(self, query: str, body: bytes, key_id: str) -> bytes:
        del body
        reading.pairs(query, ())
        found = await self._ask(Inquiry("GetClusterHealth"), key_id)
        return _ENCODE({"object": "cluster_health", **found["health"]})

    async def _resolve(self, query: str, body: bytes, key_id: str) -> bytes:
        del body
        found = await self._ask(Inquiry("Resolve", reading.route(query)), key_id)
        resources = found["resources"]
        # Relays are for gateways alone.
        return _ENCODE(
            {
                "object": "route",
                "route": next((r["route"] for r in resources if r["route"] is not None), None),
                **{
                    f"{kind}s": [{"name": r["name"], **r[kind]} for r in resources if r[kind] is not None]
                    for kind in ("endpoint", "upstream")
                },
            }
        )

    async def _match(self, query: str, body: bytes, key_id: str) -> bytes:
        reading.pairs(query, ())
        asked = reading.body(body, reading.Match)
        found = await self._ask(Inquiry("MatchRoutes", asked.fields()), key_id)
        return _ENCODE({"object": "list", "data": found["candidates"]})

    async def _why(self, query: str, body: bytes, key_id: str) -> bytes:
        reading.pairs(query, ())
        return _ENCODE(await self._explain.answer(body, key_id))

    async def _record(self, query: str, body: bytes, key_id: str) -> bytes:
        reading.pairs(query, ())
        samples = reading.body(body, reading.Samples).samples
        inquiry = Inquiry("RecordBenchmarkSamples", {"samples": [sample.fields() for sample in samples]})
        found = await self._ask(inquiry, key_id)
        results = [
            {"sample_id": sample.sample_id, "stored": result["refused"] is None, "refused": result["refused"]}
            for sample, result in zip(samples, found["results"], strict=True)
        ]
        return _ENCODE({"object": "list", "data": results})
