from msgspec.structs import replace

from geniehive.rules.model import (
    Asset,
    Availability,
    Health,
    Host,
    Inventory,
    LoadState,
    Reason,
    Relay,
    RequestPolicy,
    Service,
)
from geniehive.rules.operations import Operation
from geniehive_node.core.inventory import (
    FORGET_AFTER,
    SLOW_LOOKS,
    Catalog,
    Effect,
    Event,
    FirstLooksDone,
    Found,
    Joined,
    Looked,
    Missed,
    Offer,
    Placed,
    Seen,
    Stopping,
    TooMuch,
)
from geniehive_node.core.looks import Choice, Figures, ModelPolicy, Snapshot, Source, Trouble
from geniehive_node.core.ways import Reach

OLLAMA = Source(key="http://127.0.0.1:11434", url="http://127.0.0.1:11434", loopback=True)
OTHER = Source(key="http://127.0.0.1:8080", url="http://127.0.0.1:8080", loopback=True)
BOX = Source(key="http://192.0.2.7:8000", url="http://192.0.2.7:8000", configured=True)
DEMO = Source(key="http://127.0.0.1:8802", url="http://127.0.0.1:8802", loopback=True, configured=True, demo=True)
CHAT = (Operation.CHAT,)


def snapshot(*names: str, runtime: str = "ollama", **more: object) -> Snapshot:
    assets = tuple(Asset(asset_id=n, upstream_name=n, load_state=LoadState.LOADED) for n in names)
    return Snapshot(runtime=runtime, operations=CHAT, assets=assets, **more)  # type: ignore[arg-type]


class Play:
    """A catalog with the conversation so far."""

    def __init__(self, *sources: Source) -> None:
        relay = Relay(host_id="h", base_urls=("http://r",), token="t")
        self.catalog = Catalog(Host(host_id="h"), sources, Placed(reach=Reach(), relay=relay))
        self.now = 0.0
        self.last: Inventory | None = None
        self.sources: dict[str, str] = {}

    def __call__(self, *events: Event) -> list[Effect]:
        effects: list[Effect] = []
        for event in events:
            effects += self.catalog.handle(event, self.now)
        for effect in effects:
            if isinstance(effect, Offer):
                self.last = effect.inventory
                self.sources = effect.sources
        return effects

    def saw(self, source: Source, *names: str, runtime: str = "ollama") -> list[Effect]:
        return self(Looked(source=source.key, snapshot=snapshot(*names, runtime=runtime)))

    def missed(
        self, source: Source, trouble: Trouble = Trouble.UNREACHABLE, runtime: str | None = None
    ) -> list[Effect]:
        return self(Missed(source=source.key, trouble=trouble, detail="why", runtime=runtime))

    @property
    def services(self) -> dict[str, Service]:
        assert self.last is not None
        return {s.service: s for s in self.last.services}


def test_nothing_is_offered_before_the_first_looks_are_done() -> None:
    play = Play(OLLAMA, OTHER)
    assert play.saw(OLLAMA, "qwen3:8b") == []
    found, offer = play(FirstLooksDone())
    assert found == Found(chat_models=1, engines=("ollama",))
    assert isinstance(offer, Offer)
    assert offer.inventory.relay == Relay(host_id="h", base_urls=("http://r",), token="t")
    service = play.services["h/ollama"]
    assert service.condition.health is Health.HEALTHY
    assert service.condition.availability is Availability.AVAILABLE
    assert [a.asset_id for a in service.assets] == ["qwen3:8b"]
    assert play.sources == {"ollama": OLLAMA.key}


def test_a_look_that_brings_nothing_new_brings_no_offer() -> None:
    play = Play(OLLAMA)
    play.saw(OLLAMA, "a")
    play(FirstLooksDone())
    assert play.saw(OLLAMA, "a") == []
    assert play(Looked(source=OLLAMA.key, snapshot=snapshot("a"), figures=Figures(running=3))) == []
    (offer,) = play.saw(OLLAMA, "a", "b")
    assert isinstance(offer, Offer)


def test_dead_well_known_ports_are_not_listed_and_configured_ones_are() -> None:
    play = Play(OLLAMA, BOX, DEMO)
    for source in (OLLAMA, BOX, DEMO):
        play.missed(source)
    play(FirstLooksDone())
    assert list(play.services) == ["h/192.0.2.7-8000"]
    condition = play.services["h/192.0.2.7-8000"].condition
    assert (condition.health, condition.reason, condition.detail) == (Health.UNHEALTHY, Reason.ENGINE, "why")
    play.saw(BOX, "m", runtime="vllm")
    assert list(play.services) == ["h/vllm"]


def test_two_engines_of_a_kind_get_names_of_their_own_and_keep_them() -> None:
    play = Play(BOX, OLLAMA, OTHER)
    play.saw(OTHER, "a")
    play.saw(OLLAMA, "b")
    play.saw(BOX, "c")
    play(FirstLooksDone())
    expected = {"ollama": BOX.key, "ollama-2": OLLAMA.key, "ollama-3": OTHER.key}
    assert play.sources == expected
    play.missed(BOX)
    play.saw(OLLAMA, "b", "d")
    assert play.sources == expected


def test_a_configured_name_is_never_given_to_another() -> None:
    play = Play(OLLAMA, replace(BOX, name="ollama"))
    play.saw(OLLAMA, "a")
    play(FirstLooksDone())
    assert play.sources == {"ollama-2": OLLAMA.key, "ollama": BOX.key}


def test_an_engine_that_dies_stays_listed_as_unhealthy_until_it_is_back() -> None:
    play = Play(OLLAMA)
    play.saw(OLLAMA, "a")
    play(FirstLooksDone())
    play.missed(OLLAMA)
    service = play.services["h/ollama"]
    assert service.condition.health is Health.UNHEALTHY
    assert [a.asset_id for a in service.assets] == ["a"]
    play.saw(OLLAMA, "a")
    assert play.services["h/ollama"].condition.health is Health.HEALTHY


def test_a_discovered_engine_that_stays_away_is_forgotten_a_configured_one_is_not() -> None:
    play = Play(OLLAMA, BOX)
    play.saw(OLLAMA, "a")
    play.saw(BOX, "b", runtime="vllm")
    play(FirstLooksDone())
    play.missed(OLLAMA)
    play.missed(BOX)
    play.now = FORGET_AFTER - 1
    play.missed(OLLAMA)
    assert set(play.services) == {"h/ollama", "h/vllm"}
    play.now = FORGET_AFTER
    play.missed(OLLAMA)
    assert set(play.services) == {"h/vllm"}


def test_one_late_answer_is_no_death() -> None:
    play = Play(OLLAMA)
    play.saw(OLLAMA, "a")
    play(FirstLooksDone())
    for _ in range(SLOW_LOOKS - 1):
        assert play.missed(OLLAMA, Trouble.SLOW) == []
    assert play.missed(OLLAMA, Trouble.SLOW) != []
    assert play.services["h/ollama"].condition.health is Health.UNHEALTHY


def test_an_engine_that_wants_a_key_is_listed_with_what_to_do() -> None:
    play = Play(OTHER)
    play.missed(OTHER, Trouble.REFUSED, runtime="vllm")
    play(FirstLooksDone())
    service = play.services["h/vllm"]
    assert service.runtime == "vllm"
    assert service.condition.health is Health.UNHEALTHY
    assert service.assets == ()


def test_another_program_on_the_port_ends_the_service_at_once() -> None:
    play = Play(OTHER)
    play.saw(OTHER, "a", runtime="llamacpp")
    play(FirstLooksDone())
    play.missed(OTHER, Trouble.STRANGE)
    assert play.services == {}


def test_another_engine_on_the_port_is_another_service() -> None:
    play = Play(OTHER)
    play.saw(OTHER, "a", runtime="llamacpp")
    play(FirstLooksDone())
    play.saw(OTHER, "a", runtime="vllm")
    assert list(play.services) == ["h/vllm"]


def test_loading_shows_in_the_models() -> None:
    play = Play(OTHER)
    play.saw(OTHER, "a", runtime="llamacpp")
    play(FirstLooksDone())
    play.missed(OTHER, Trouble.LOADING, runtime="llamacpp")
    service = play.services["h/llamacpp"]
    assert service.condition.health is Health.UNHEALTHY
    assert service.assets[0].load_state is LoadState.LOADING


def test_a_gateway_of_the_own_cluster_is_listed_but_never_used() -> None:
    play = Play(BOX)
    play(Looked(source=BOX.key, snapshot=snapshot("a", runtime="geniehive", cluster="c1")))
    play(FirstLooksDone())
    assert play.services["h/geniehive"].ways  # of some cluster: not known yet whose
    play(Joined(cluster_id="c1", host_id="h"))
    service = play.services["h/geniehive"]
    assert (service.ways, service.assets) == ((), ())
    assert "circle" in service.condition.detail
    play(Joined(cluster_id="c2", host_id="h"))
    assert play.services["h/geniehive"].ways


def test_a_new_name_of_the_host_is_the_name_of_all_its_services() -> None:
    play = Play(OLLAMA)
    play.saw(OLLAMA, "a")
    play(FirstLooksDone(), Joined(cluster_id="c", host_id="h-2"))
    assert list(play.services) == ["h-2/ollama"]
    assert play.last is not None
    assert play.last.relay is not None
    assert play.last.relay.host_id == play.last.host.host_id == "h-2"


def test_configured_operations_and_models_have_the_last_word() -> None:
    source = replace(BOX, operations=(Operation.EMBEDDINGS,), models=("b", "whisper-x"))
    play = Play(source)
    assets = (
        Asset(asset_id="a", upstream_name="a"),
        Asset(asset_id="b", upstream_name="b", operations=CHAT, context_tokens=7),
    )
    play(Looked(source=source.key, snapshot=Snapshot(runtime="openai", operations=CHAT, assets=assets)))
    play(FirstLooksDone())
    service = play.services["h/openai"]
    assert service.operations == (Operation.EMBEDDINGS,)
    assert [(a.asset_id, a.operations, a.context_tokens) for a in service.assets] == [
        ("b", (), 7),
        ("whisper-x", (), None),
    ]


def test_request_policies_go_with_the_models_that_they_name() -> None:
    brief, long = RequestPolicy(defaults_json='{"n":1}'), RequestPolicy(defaults_json='{"n":2}')
    policies = (ModelPolicy(models=("qwen3*", "x"), policy=brief), ModelPolicy(models=("*",), policy=long))
    source = replace(OLLAMA, policies=policies)
    play = Play(source)
    play.saw(source, "qwen3:8b", "llama3")
    play(FirstLooksDone())
    models = play.services["h/ollama"].assets
    assert {a.asset_id: a.request_policies for a in models} == {"qwen3:8b": (brief, long), "llama3": (long,)}


def test_names_that_the_contract_forbids_are_left_out() -> None:
    play = Play(OLLAMA)
    play.saw(OLLAMA, "good", "bad\n", "x" * 513, "good")
    play(FirstLooksDone())
    assert [a.asset_id for a in play.services["h/ollama"].assets] == ["good"]


def test_the_demonstration_engine_does_not_count_as_found() -> None:
    play = Play(DEMO, OLLAMA)
    play.saw(DEMO, "smol", runtime="llamacpp")
    play(Looked(source=OLLAMA.key, snapshot=replace(snapshot("embed"), operations=(Operation.EMBEDDINGS,))))
    assert play(FirstLooksDone())[0] == Found(chat_models=0, engines=("ollama",))
    assert play.services["h/llamacpp"].demo


def test_stopping_says_so() -> None:
    play = Play(OLLAMA)
    play(FirstLooksDone(), Stopping())
    assert play.last is not None
    assert play.last.host.condition.reason is Reason.STOPPING
    assert play.last.host.condition.availability is Availability.DRAINING


def test_refused_for_its_size_the_offer_shrinks() -> None:
    play = Play(OLLAMA)
    play.saw(OLLAMA, *(f"{i:0500}" for i in range(4000)))
    play(FirstLooksDone())
    sizes = []
    for _ in range(10):
        sizes.append(len(play.services["h/ollama"].assets))
        play(TooMuch())
    assert sizes == sorted(sizes, reverse=True)
    assert 0 < sizes[-1] < sizes[0] < 4000


def test_load_names_every_service_and_forgets_figures_of_the_dead() -> None:
    play = Play(OLLAMA, OTHER)
    play(Looked(source=OLLAMA.key, snapshot=snapshot("a"), figures=Figures(running=2, queued=1)))
    play(FirstLooksDone())
    (load,) = play.catalog.load({"ollama": 3}, play.now + 0.5)
    assert (load.service, load.running, load.queued, load.relayed) == ("h/ollama", 2, 1, 3)
    assert load.age_seconds == 0.5, "as old as the look that found it"
    play.missed(OLLAMA)
    (load,) = play.catalog.load({}, play.now)
    assert (load.running, load.queued, load.relayed) == (None, None, 0)
    assert load.age_seconds is None


def test_an_engine_that_loads_at_the_first_look_may_have_a_chat_model() -> None:
    play = Play(BOX, DEMO)
    play(Missed(source=BOX.key, trouble=Trouble.LOADING, detail="is loading its model", runtime="llamacpp"))
    play(Missed(source=DEMO.key, trouble=Trouble.LOADING, detail="is loading its model", runtime="llamacpp"))
    assert play(FirstLooksDone())[0] == Found(chat_models=1, engines=())


def test_a_configured_engine_in_trouble_is_told_after_the_first_look() -> None:
    play = Play(BOX, OTHER, DEMO)
    for source in (BOX, OTHER, DEMO):
        play(Missed(source=source.key, trouble=Trouble.UNREACHABLE, detail="can't be reached"))
    assert play(FirstLooksDone())[0] == Found(chat_models=0, engines=(), troubles={BOX.key: "can't be reached"})


FAR = Placed(reach=Reach(far=True), relay=Relay(host_id="h", base_urls=("https://192.0.2.1:8803",)))


def test_another_address_is_another_offer() -> None:
    play = Play(OLLAMA)
    play(Looked(source=OLLAMA.key, snapshot=snapshot("a")), FirstLooksDone())
    (offer,) = play(FAR)
    assert isinstance(offer, Offer)
    assert offer.inventory.relay == FAR.relay
    assert play(FAR) == []
    play(Joined(cluster_id="c", host_id="h-2"))
    assert play.last is not None
    assert play.last.relay == Relay(host_id="h-2", base_urls=("https://192.0.2.1:8803",))


def test_an_engine_that_answers_other_machines_is_theirs_to_ask() -> None:
    play = Play(OLLAMA)
    play(FAR, Looked(source=OLLAMA.key, snapshot=snapshot("a")), FirstLooksDone())
    assert [w.direct_url for w in play.services["h/ollama"].ways] == [OLLAMA.url, None]
    play(Seen(source=OLLAMA.key, url="http://192.0.2.1:11434"))
    ways = play.services["h/ollama"].ways
    assert [w.direct_url for w in ways] == [OLLAMA.url, "http://192.0.2.1:11434", None]
    assert [w.same_host_only for w in ways] == [True, False, False]
    play(Seen(source=OLLAMA.key, url=None))
    assert len(play.services["h/ollama"].ways) == 2


def test_what_nobody_can_reach_is_listed_with_what_to_do() -> None:
    keyed = replace(BOX, has_key=True, way=Choice.DIRECT, name="box")
    play = Play(keyed)
    play(Looked(source=keyed.key, snapshot=snapshot("a", runtime="vllm")))
    found = play(FirstLooksDone())[0]
    assert isinstance(found, Found)
    assert found.chat_models == 1  # it works, so no demonstration engine is called for
    service = play.services["h/box"]
    assert service.ways == ()
    assert (service.condition.health, service.condition.reason) == (Health.UNHEALTHY, Reason.UNREACHABLE)
    assert "needs a key" in service.condition.detail
    assert "way: auto" in service.condition.detail
    # What is wrong with the engine itself comes first.
    play(Missed(source=keyed.key, trouble=Trouble.UNREACHABLE, detail="gone"))
    assert play.services["h/box"].condition.reason is Reason.ENGINE


def test_the_limit_that_was_set_is_offered_whether_the_engine_is_there_or_not() -> None:
    limited = replace(BOX, concurrency_limit=8)
    play = Play(limited)
    play.missed(limited)
    play(FirstLooksDone())
    assert [s.concurrency_limit for s in play.services.values()] == [8]
    play.saw(limited, "m", runtime="vllm")
    assert [s.concurrency_limit for s in play.services.values()] == [8]


def test_an_engine_with_paths_of_its_own_is_the_relays() -> None:
    play = Play(OLLAMA)
    play(Looked(source=OLLAMA.key, snapshot=snapshot("m", paths=(("/v1/rerank", "/rerank"),))))
    (offer,) = (effect for effect in play(FirstLooksDone()) if isinstance(effect, Offer))
    (service,) = offer.inventory.services
    assert [way.direct_url for way in service.ways] == [None]
    assert offer.paths == {"ollama": {"/v1/rerank": "/rerank"}}
