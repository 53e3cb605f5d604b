"""Which endpoint of a plan is asked.

Tiers in order; within a tier by its strategy. Endpoints at their limit are passed over, and so are those whose lanes
are all ejected; when all are ejected, the one that failed longest ago is tried rather than refusing.
"""

from collections.abc import Mapping

import msgspec

from gateway.core.admission import Admission
from gateway.core.asking import Ask
from gateway.core.considered import Considered, consider
from gateway.core.ejection import Ejections
from gateway.core.flight import Flight
from gateway.core.loads import Loads
from gateway.core.outcome import Tokens
from gateway.core.plan import Candidate, Choice, Lane, Plan, Pool, TierPlan
from gateway.core.speeds import Lengths
from gateway.core.strategy import Member, Turn, pick
from gateway.core.wait import Place, Seat
from geniehive.rules.operations import Operation

# Tiers whose turns are remembered. Forgetting one costs nothing but evenness, once.
_TURNS_KEPT = 10_000
# Names whose load is remembered while there is none.
_ROUTES_KEPT = 4096
# Endpoints of which speed and conversations are remembered while nothing is in flight there.
_SEATS_KEPT = 20_000
# Seconds after which load samples are looked at again even if none came: they get too old.
_SAMPLES_LAST = 0.5

_NO_ASK = Ask()


class Full(msgspec.Struct, frozen=True):
    """Endpoints are there, and all of them at their limits."""

    pools: tuple[Pool, ...]


class RouteLoad:
    """in_flight: requests that are with an engine. waiting: held here, for a turn or for a model that loads."""

    __slots__ = ("in_flight", "waiting")

    def __init__(self) -> None:
        self.in_flight = 0
        self.waiting = 0


class Balance:
    """Turns, limits, ejections, what is in flight, and what is known of endpoints.

    gateways: how many, workers too, send to the same endpoints by the same figures: what they will have done since the
    last load sample is guessed by what this one did.
    """

    def __init__(self, admission: Admission | None = None, loads: Loads | None = None, gateways: int = 1) -> None:
        self.admission = admission if admission is not None else Admission()
        self.loads = loads if loads is not None else Loads()
        self.ejections = Ejections()
        self.lengths = Lengths()
        self._gateways = gateways
        self._seats: dict[str, Seat] = {}
        self._places: dict[str, Place] = {}
        # Grows with everything that is learned of speeds.
        self._learned = 0
        self._turns: dict[tuple[str, int, int], Turn] = {}
        self._routes: dict[tuple[str, Operation], RouteLoad] = {}

    def route(self, model: str, operation: Operation) -> RouteLoad:
        """To be counted in by who asks for this name."""
        load = self._routes.get((model, operation))
        if load is None:
            if len(self._routes) >= _ROUTES_KEPT:
                self._routes = {key: load for key, load in self._routes.items() if load.in_flight or load.waiting}
            load = self._routes[(model, operation)] = RouteLoad()
        return load

    def routes(self) -> list[tuple[str, Operation, int, int]]:
        """Name, operation, in flight, waiting: of those that have any."""
        return [(*key, r.in_flight, r.waiting) for key, r in self._routes.items() if r.in_flight or r.waiting]

    @property
    def in_flight(self) -> dict[str, int]:
        """By endpoint; those with none are left out."""
        return {endpoint: seat.own for endpoint, seat in self._seats.items() if seat.own}

    def own_at(self, load_key: str, when: float) -> int:
        """In flight from here some seconds ago, by what load counts under."""
        place = self._places.get(load_key)
        return place.own_at(when) if place is not None else 0

    def choose(self, plan: Plan, tried: set[str], now: float, ask: Ask | None = None) -> Choice | Full | None:
        """The endpoint to be asked, of those not in `tried`; None if all have been tried.

        ask: None: nothing is known of the request, or need be, since no tier has a choice that depends on it.
        """
        if self.admission.waiting:
            self._let_in(plan, now)
        return self._choose(plan, tried, now, ask)

    def _choose(
        self, plan: Plan, tried: set[str], now: float, ask: Ask | None, waited: bool = False
    ) -> Choice | Full | None:
        """waited: the plan may be old, so that its limits are not those in force."""
        full: list[Pool] = []
        all_open = not self.ejections.out
        for tier in plan.tiers:
            turn = self._turns.get(tier.key)
            if turn is None or turn.tier is not tier:
                turn = self._turn(tier, now, waited)
            if turn.in_turn and turn.free and all_open and not tried:
                # As nearly always; the rest of this is for when it is not so.
                order = turn.order
                choice = order[0].choice
                order.rotate(-1)
                return choice
            found = self._select(turn, tried, now, ask, full)
            if found is not None:
                member, lane = found
                turn.took(member)
                choice = member.choice
                return choice if lane is choice.lane else Choice(member.candidate, lane, tier.label)
        return Full(tuple(full)) if full else self._longest_out(plan, tried)

    def _select(
        self, turn: Turn, tried: set[str] | frozenset[str], now: float, ask: Ask | None, full: list[Pool]
    ) -> tuple[Member, Lane] | None:
        """Whom of the tier, and by which lane; None: nobody there can serve now. full: gets the pools without room."""
        all_open = not self.ejections.out
        in_turn = turn.in_turn
        lanes: dict[Member, Lane] = {}
        able: list[Member] | tuple[Member, ...]
        if turn.free and all_open and not tried and not in_turn:
            able = turn.members
        else:
            able = []
            for member in turn.order if in_turn else turn.members:
                candidate = member.candidate
                if candidate.endpoint in tried:
                    continue
                if not all_open:
                    lane = self.ejections.open_lane(candidate, (), now)
                    if lane is None:
                        continue
                    lanes[member] = lane
                if (pool := candidate.pool) is not None and not self.admission.has_room(pool):
                    full.append(pool)
                    continue
                able.append(member)
                if in_turn:
                    break
            if not able:
                return None
        if in_turn or len(able) == 1:
            member = able[0]
        else:
            self._look(turn, now)
            if ask is None:
                ask = _NO_ASK
            member = pick(turn, able, ask, self._expected(turn.tier, ask), now)
        return member, lanes.get(member, member.choice.lane)

    def _expected(self, tier: TierPlan, ask: Ask) -> float:
        expected = self.lengths.expected(ask.route, tier.expected)
        return expected if ask.max_tokens is None else min(expected, float(ask.max_tokens))

    def _look(self, turn: Turn, now: float) -> None:
        """At what has become known of the turn's members since somebody looked last."""
        if turn.learned != self._learned and turn.lacking:
            turn.learn(self._learned)
        loads = self.loads
        if turn.taken != loads.taken or now >= turn.asked_again:
            turn.taken = loads.taken
            turn.asked_again = now + _SAMPLES_LAST
            for member in turn.members:
                seat = member.seat
                place = seat.place
                place.sampled(loads.others(place.key, now), now)
                seat.pace.resize(place.slots)

    def open_lane(self, candidate: Candidate, but: tuple[Lane, ...], now: float) -> Lane | None:
        """The candidate's first lane that is not ejected and not among `but`."""
        return self.ejections.open_lane(candidate, but, now)

    def _longest_out(self, plan: Plan, tried: set[str]) -> Choice | Full | None:
        out: list[Choice] = []
        full: list[Pool] = []
        for tier in plan.tiers:
            for candidate in tier.candidates:
                if candidate.endpoint in tried:
                    continue
                if candidate.pool is not None and not self.admission.has_room(candidate.pool):
                    full.append(candidate.pool)
                else:
                    out += [Choice(candidate, lane, tier.label) for lane in candidate.lanes]
        if full and not out:
            return Full(tuple(full))
        since = self.ejections.since
        return min(out, key=lambda c: max(since(c.lane), since(c.candidate.endpoint)), default=None)

    def ejected(self, now: float) -> list[str]:
        """Endpoints that are left out now: every lane of theirs is ejected."""
        if not self.ejections.out:
            return []
        out = {key.service if isinstance(key, Lane) else key for key in self.ejections.ejected(now)}
        candidates = [c for turn in self._turns.values() for c in turn.tier.candidates]
        known = {c.endpoint: c for c in candidates if c.service in out or c.endpoint in out}
        return sorted(name for name, c in known.items() if self.open_lane(c, (), now) is None)

    def opens_in(self, plan: Plan, now: float) -> float | None:
        """Seconds until the first of the plan's lanes is half open; None for a plan without lanes."""
        wait = self.ejections.opens_in
        candidates = [candidate for tier in plan.tiers for candidate in tier.candidates]
        waits = [max(wait(c.endpoint, now), min(wait(lane, now) for lane in c.lanes)) for c in candidates]
        return min(waits, default=None)

    def started(self, choice: Choice, now: float, ask: Ask | None = None) -> Flight:
        """The request goes there. ask: as it was chosen by."""
        candidate = choice.candidate
        endpoint = candidate.endpoint
        seat = self._seats.get(endpoint)
        if seat is None:
            seat = self._seat(candidate, now)
        flight = Flight(choice, seat, ask, 0.0 if ask is None else self._answer(ask), now)
        if candidate.pool is not None:
            self.admission.took(candidate.pool)
        if self.ejections.out:
            self.ejections.chosen(choice.lane, now)
            self.ejections.chosen(endpoint, now)
        return flight

    def _answer(self, ask: Ask) -> float:
        expected = self.lengths.expected(ask.route)
        return expected if ask.max_tokens is None else min(expected, float(ask.max_tokens))

    def moved(self, flight: Flight, other: Choice, now: float) -> None:
        """The same candidate is asked by another lane."""
        self.ejections.left(flight.choice.lane)
        self.ejections.chosen(other.lane, now)
        flight.choice = other

    def ended(
        self, flight: Flight, now: float, seconds: float | None = None, tokens: Tokens | None = None, ok: bool = False
    ) -> None:
        """The turn is given back, to whoever waits for it.

        seconds: how long it took to be answered to the end. ok: that was with success. tokens: as the engine told.
        """
        choice = flight.choice
        candidate = choice.candidate
        flight.end(now, tokens, ok, self.lengths)
        if ok:
            self._learned += 1
        if self.ejections.out:
            self.ejections.left(choice.lane)
            self.ejections.left(candidate.endpoint)
        if candidate.pool is not None:
            self.admission.gave_back(candidate.pool, seconds)
            if self.admission.waiting:
                self._hand_on(candidate.pool, now)

    def _hand_on(self, pool: Pool, now: float) -> None:
        """Gives what is free in the pool to those who wait there. Who finds its lanes ejected waits on."""
        passed_over = 0
        while self.admission.has_room(pool) and (ticket := self.admission.next(pool, passed_over)) is not None:
            choice = self._choose(ticket.plan, ticket.tried, now, ticket.ask, True)
            if isinstance(choice, Choice):
                self.admission.withdraw(ticket)
                ticket.flight = self.started(choice, now, ticket.ask)
                ticket.wake()
            else:
                if isinstance(choice, Full):
                    self.admission.extend(ticket, choice.pools)
                passed_over += 1

    def _let_in(self, plan: Plan, now: float) -> None:
        """Nobody who comes now gets what others wait for: a higher limit, or a lane that is open again."""
        for tier in plan.tiers:
            for candidate in tier.candidates:
                if candidate.pool is not None:
                    self.admission.learn(candidate.pool)
                    self._hand_on(candidate.pool, now)

    def explain(
        self, plan: Plan, ask: Ask | None, now: float, unfit: Mapping[str, str] | None = None
    ) -> tuple[Considered, ...]:
        """Every endpoint of the plan, and which of them `choose` would take now. unfit: who can't serve such a request,
        and why: `tried` for `choose`.
        """
        unfit = unfit if unfit is not None else {}
        ask = ask if ask is not None else _NO_ASK
        chosen: str | None = None
        tried = frozenset(unfit)
        told: list[Considered] = []
        full: list[Pool] = []
        for index, tier in enumerate(plan.tiers):
            turn = self._turn(tier, now)
            self._look(turn, now)
            found = self._select(turn, tried, now, ask, full) if chosen is None else None
            if found is not None:
                chosen = found[0].candidate.endpoint
            expected = self._expected(tier, ask)
            for member in turn.members:
                candidate = member.candidate
                lane = self.ejections.open_lane(candidate, (), now)
                why_not = unfit.get(candidate.endpoint, "") or self._why_not(candidate, lane, now)
                taken = found is not None and found[0] is member
                told.append(consider(index, tier, member, lane, why_not, ask, expected, now, taken))
        if chosen is None and not full:
            last = self._longest_out(plan, set(tried))
            if isinstance(last, Choice):
                endpoint = last.candidate.endpoint
                told = [msgspec.structs.replace(c, chosen=True) if c.endpoint == endpoint else c for c in told]
        return tuple(told)

    def _why_not(self, candidate: Candidate, lane: Lane | None, now: float) -> str:
        """lane: the one that is open."""
        if lane is None:
            lanes = min(self.ejections.opens_in(lane, now) for lane in candidate.lanes)
            wait_for = max(lanes, self.ejections.opens_in(candidate.endpoint, now))
            return f"left out after failures, for {wait_for:.2g} s more"
        pool = candidate.pool
        if pool is not None and not self.admission.has_room(pool):
            return f"{pool.name} is at its limit, {pool.limit} at once"
        return ""

    def _turn(self, tier: TierPlan, now: float, waited: bool = False) -> Turn:
        """waited: see _choose."""
        turn = self._turns.get(tier.key)
        if turn is not None and turn.tier is tier:
            return turn
        for candidate in tier.candidates:
            if candidate.pool is not None and not waited:
                self.admission.learn(candidate.pool)
        if len(self._seats) + len(tier.candidates) > _SEATS_KEPT:
            self._forget()
            turn = None
        seats = {candidate.endpoint: self._seat(candidate, now) for candidate in tier.candidates}
        if turn is None:
            if len(self._turns) >= _TURNS_KEPT:
                self._turns.clear()
            turn = self._turns[tier.key] = Turn(tier, seats)
        else:
            turn.follow(tier, seats)
        return turn

    def _seat(self, candidate: Candidate, now: float) -> Seat:
        """As this table has it."""
        seat = self._seats.get(candidate.endpoint)
        key = candidate.load_key or candidate.endpoint
        if seat is None or (seat.place.key != key and not seat.own):
            place = self._places.get(key)
            if place is None:
                place = self._places[key] = Place(candidate, self._gateways)
            seat = self._seats[candidate.endpoint] = Seat(candidate, place)
        seat.follow(candidate, now)
        return seat

    def _forget(self) -> None:
        """Those where nothing is in flight. Turns know their seats: they begin anew."""
        self._turns.clear()
        self._seats = {endpoint: seat for endpoint, seat in self._seats.items() if seat.own}
        self._places = {seat.place.key: seat.place for seat in self._seats.values()}
