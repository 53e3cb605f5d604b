"""SDKs that people use do all they can through the gateway. Agents and other languages are in test_agents."""

import base64
from collections.abc import Iterator
from typing import Any

import aiohttp
import anthropic
import openai
import pytest

from geniehive.rules.operations import BY_PATH
from tests.support.fake_answers import PNG
from tests.support.fake_forms import PATHS as FORMS
from tests.support.standing import EMBEDDER, MODEL, Standing

HELLO: Any = [{"role": "user", "content": "hello"}]
SAID = "engine A"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION: Any = {"name": "weather", "description": "of a city", "parameters": SCHEMA}


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    with Standing(tmp_path_factory.mktemp("clients")) as made:
        yield made


@pytest.fixture
def house(standing: Standing) -> Iterator[Standing]:
    standing.fresh()
    yield standing
    standing.fresh()


@pytest.fixture
def client(house: Standing) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=house.url + "/v1", api_key=house.key, max_retries=0, timeout=10) as made:
        yield made


@pytest.fixture
def claude(house: Standing) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=house.url, api_key=house.key, max_retries=0, timeout=10) as made:
        yield made


class TestOpenAI:
    def test_chat(self, client: openai.OpenAI) -> None:
        found = client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO)
        assert found.parse().choices[0].message.content == SAID
        assert found.parse().usage.completion_tokens == 3  # type: ignore[union-attr]
        assert found.request_id

    @pytest.mark.parametrize("counted", [False, True])
    def test_chat_in_a_stream_has_usage_only_if_asked(self, client: openai.OpenAI, counted: bool) -> None:
        more: Any = {"stream_options": {"include_usage": True}} if counted else {}
        chunks = list(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True, **more))
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == SAID
        assert [c.usage.completion_tokens for c in chunks if c.usage] == [3] * counted
        assert [c for c in chunks if not c.choices] == [c for c in chunks if c.usage]

    @pytest.mark.parametrize("stream", [False, True])
    def test_chat_with_a_tool(self, client: openai.OpenAI, stream: bool) -> None:
        tools: Any = [{"type": "function", "function": FUNCTION}]
        if stream:
            with client.chat.completions.stream(model=MODEL, messages=HELLO, tools=tools) as events:
                message: Any = events.get_final_completion().choices[0].message
        else:
            message = client.chat.completions.create(model=MODEL, messages=HELLO, tools=tools).choices[0].message
        call = message.tool_calls[0]
        assert (call.function.name, call.function.arguments) == ("weather", '{"city": "x"}')
        result: Any = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
        asked = [*HELLO, {"role": "assistant", "tool_calls": [call.model_dump(exclude={"parsed"})]}, result]
        done = client.chat.completions.create(model=MODEL, messages=asked, tools=tools)
        assert done.choices[0].message.content == SAID

    def test_completions(self, client: openai.OpenAI) -> None:
        assert client.completions.create(model=MODEL, prompt="hello").choices[0].text == SAID
        chunks = list(client.completions.create(model=MODEL, prompt="hello", stream=True))
        assert "".join(c.choices[0].text for c in chunks) == SAID

    @pytest.mark.parametrize("given", ["a", ["a", "b"], [1, 2, 3], [[1, 2], [3]]])
    def test_embeddings(self, client: openai.OpenAI, given: Any) -> None:
        found = client.embeddings.create(model=MODEL, input=given)
        assert len(found.data) == (2 if isinstance(given, list) and not isinstance(given[0], int) else 1)
        assert len(found.data[0].embedding) == 8
        plain = client.embeddings.create(model=MODEL, input=given, encoding_format="float")
        assert plain.data[0].embedding == pytest.approx(found.data[0].embedding)

    def test_responses(self, client: openai.OpenAI) -> None:
        found = client.responses.create(model=MODEL, input="hello")
        assert found.output_text == SAID
        assert found.usage is not None
        assert found.usage.output_tokens == 3

    def test_responses_in_a_stream(self, client: openai.OpenAI) -> None:
        with client.responses.stream(model=MODEL, input="hello") as events:
            kinds = [event.type for event in events]
            assert events.get_final_response().output_text == SAID
        assert kinds[0] == "response.created"
        assert kinds[-1] == "response.completed"
        assert kinds.count("response.output_text.delta") == 3

    @pytest.mark.parametrize("stream", [False, True])
    def test_responses_with_a_tool(self, client: openai.OpenAI, stream: bool) -> None:
        tools: Any = [{"type": "function", **FUNCTION, "strict": False}]
        if stream:
            with client.responses.stream(model=MODEL, input="hello", tools=tools) as events:
                call: Any = events.get_final_response().output[0]
        else:
            call = client.responses.create(model=MODEL, input="hello", tools=tools).output[0]
        assert (call.type, call.name, call.arguments) == ("function_call", "weather", '{"city": "x"}')
        given: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "rain"}]
        assert client.responses.create(model=MODEL, input=given, tools=tools).output_text == SAID

    def test_moderations(self, client: openai.OpenAI) -> None:
        assert client.moderations.create(model=MODEL, input="hello").results[0].flagged is False

    @pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
    def test_images(self, client: openai.OpenAI, house: Standing) -> None:
        made = client.images.generate(model=MODEL, prompt="a bee", n=2)
        edited = client.images.edit(model=MODEL, image=[("1.png", PNG), ("2.png", PNG)], prompt="a hive")
        varied = client.images.create_variation(model=MODEL, image=("a.png", PNG), n=2)
        for found in (made, edited, varied):
            assert base64.b64decode(found.data[0].b64_json) == PNG  # type: ignore[index, arg-type]
        (sent,) = house.asked("/v1/images/edits")
        assert base64.b64decode(sent["body_base64"]).count(PNG) == 2

    def test_images_in_a_stream(self, client: openai.OpenAI) -> None:
        events = list(client.images.generate(model=MODEL, prompt="a bee", stream=True, partial_images=1))
        assert [event.type for event in events] == ["image_generation.partial_image", "image_generation.completed"]

    def test_speech(self, client: openai.OpenAI, house: Standing) -> None:
        whole = client.audio.speech.create(model=MODEL, voice="alloy", input="hello", response_format="wav")
        sound = whole.read()
        assert sound.startswith(b"RIFF")
        assert len(sound) == 44 + 3 * 4800
        ask = client.audio.speech.with_streaming_response
        with ask.create(model=MODEL, voice="alloy", input="hello", response_format="wav") as pieces:
            assert pieces.headers["content-type"] == "audio/wav"
            assert b"".join(pieces.iter_bytes()) == sound

    @pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
    @pytest.mark.parametrize("form", ["json", "text", "srt", "vtt", "verbose_json"])
    def test_transcriptions_and_translations(self, client: openai.OpenAI, house: Standing, form: Any) -> None:
        sound = b"RIFF" + bytes(range(256)) * 400
        heard: Any = client.audio.transcriptions.create(model=MODEL, file=("a.wav", sound), response_format=form)
        assert SAID in (heard if isinstance(heard, str) else heard.text)
        turned: Any = client.audio.translations.create(model=MODEL, file=("a.wav", sound), response_format=form)
        assert SAID in (turned if isinstance(turned, str) else turned.text)
        for path in ("transcriptions", "translations"):
            (sent,) = house.asked("/v1/audio/" + path)
            assert sound in base64.b64decode(sent["body_base64"])

    def test_transcriptions_in_a_stream(self, client: openai.OpenAI) -> None:
        events = list(client.audio.transcriptions.create(model=MODEL, file=("a.wav", b"RIFF"), stream=True))
        assert [e.type for e in events] == ["transcript.text.delta"] * 3 + ["transcript.text.done"]

    def test_models(self, client: openai.OpenAI) -> None:
        assert {MODEL, EMBEDDER} <= {model.id for model in client.models.list()}
        assert client.models.retrieve(MODEL).id == MODEL

    def test_errors_of_the_gateway(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="ghc_wrong").chat.completions.create(model=MODEL, messages=HELLO)
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model="none", messages=HELLO)
        assert caught.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError, match="embeddings"):
            client.chat.completions.create(model=EMBEDDER, messages=HELLO)
        with pytest.raises(openai.BadRequestError, match="embeddings"):
            client.audio.transcriptions.create(model=EMBEDDER, file=("a.wav", b"RIFF"))

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (400, openai.BadRequestError),
            (403, openai.PermissionDeniedError),
            (404, openai.NotFoundError),
            (422, openai.UnprocessableEntityError),
            (429, openai.RateLimitError),
            (500, openai.InternalServerError),
            (503, openai.InternalServerError),
        ],
    )
    @pytest.mark.parametrize(
        "body", [{"error": {"message": "so it is", "code": 7}}, {"error": "so it is"}, {"detail": "so it is"}]
    )
    def test_errors_of_engines(
        self, client: openai.OpenAI, house: Standing, status: int, kind: type[openai.APIStatusError], body: Any
    ) -> None:
        house.behave(status=status, body=body, headers={"Retry-After": "7"})
        with pytest.raises(kind) as caught:
            client.chat.completions.create(model=MODEL, messages=HELLO)
        if status < 500:
            assert "so it is" in caught.value.message
            assert caught.value.response.headers["retry-after"] == "7"
            # What is no object would make the SDK lose the text, so that alone is put into one.
            assert caught.value.response.json() == body or not isinstance(body.get("error"), dict)

    def test_a_stream_that_breaks_off_raises(self, client: openai.OpenAI, house: Standing) -> None:
        for how in ("fin", "reset"):
            house.behave(cut_after=3, cut=how)
            got: list[Any] = []
            with pytest.raises(openai.APIError) as caught:
                got.extend(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True))
            assert len(got) == 3
            assert not isinstance(caught.value, openai.APIConnectionError)
            with pytest.raises(openai.APIError):
                list(client.responses.create(model=MODEL, input="hello", stream=True))

    def test_an_answer_that_breaks_off_raises(self, client: openai.OpenAI, house: Standing) -> None:
        house.behave(cut_after=1, cut="fin")
        with pytest.raises(openai.APIError):
            client.chat.completions.create(model=MODEL, messages=HELLO)


class TestOpenAIAsync:
    @pytest.fixture
    async def awaited(self, house: Standing) -> Any:
        async with openai.AsyncOpenAI(base_url=house.url + "/v1", api_key=house.key, max_retries=0) as made:
            yield made

    async def test_chat(self, awaited: openai.AsyncOpenAI) -> None:
        found = await awaited.chat.completions.create(model=MODEL, messages=HELLO)
        assert found.choices[0].message.content == SAID
        stream = await awaited.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == SAID

    async def test_responses(self, awaited: openai.AsyncOpenAI) -> None:
        async with awaited.responses.stream(model=MODEL, input="hello") as events:
            assert (await events.get_final_response()).output_text == SAID

    async def test_embeddings_images_and_audio(self, awaited: openai.AsyncOpenAI) -> None:
        assert len((await awaited.embeddings.create(model=MODEL, input="a")).data) == 1
        assert (await awaited.images.edit(model=MODEL, image=("a.png", PNG), prompt="x")).data
        heard = await awaited.audio.transcriptions.create(model=MODEL, file=("a.wav", b"RIFF"))
        assert heard.text == SAID
        ask = awaited.audio.speech.with_streaming_response
        async with ask.create(model=MODEL, voice="alloy", input="hello", response_format="wav") as pieces:
            assert b"".join([piece async for piece in pieces.iter_bytes()]).startswith(b"RIFF")

    async def test_errors(self, awaited: openai.AsyncOpenAI) -> None:
        with pytest.raises(openai.NotFoundError):
            await awaited.responses.create(model="none", input="hello")
        with pytest.raises(openai.NotFoundError):
            await awaited.audio.transcriptions.create(model="none", file=("a.wav", b"RIFF"))


class TestAnthropic:
    def test_messages(self, claude: anthropic.Anthropic) -> None:
        found: Any = claude.messages.create(model=MODEL, max_tokens=9, messages=HELLO)
        assert (found.content[0].text, found.usage.output_tokens) == (SAID, 3)

    def test_messages_in_a_stream(self, claude: anthropic.Anthropic) -> None:
        with claude.messages.stream(model=MODEL, max_tokens=9, messages=HELLO) as stream:
            assert "".join(stream.text_stream) == SAID
            assert stream.get_final_message().usage.output_tokens == 3

    @pytest.mark.parametrize("stream", [False, True])
    def test_messages_with_a_tool(self, claude: anthropic.Anthropic, stream: bool) -> None:
        tools: Any = [{"name": "weather", "description": "of a city", "input_schema": SCHEMA}]
        if stream:
            with claude.messages.stream(model=MODEL, max_tokens=9, messages=HELLO, tools=tools) as events:
                first: Any = events.get_final_message()
        else:
            first = claude.messages.create(model=MODEL, max_tokens=9, messages=HELLO, tools=tools)
        assert first.stop_reason == "tool_use"
        call = first.content[0]
        assert (call.name, call.input) == ("weather", {"city": "x"})
        given: Any = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "rain"}]}
        asked = [*HELLO, {"role": "assistant", "content": [call.model_dump()]}, given]
        done: Any = claude.messages.create(model=MODEL, max_tokens=9, messages=asked, tools=tools)
        assert done.content[0].text == SAID

    def test_count_tokens(self, claude: anthropic.Anthropic) -> None:
        assert claude.messages.count_tokens(model=MODEL, messages=HELLO).input_tokens > 0

    def test_versions_are_passed_and_keys_are_not(self, claude: anthropic.Anthropic, house: Standing) -> None:
        claude.beta.messages.create(
            model=MODEL, max_tokens=9, messages=HELLO, betas=["a-beta"], extra_query={"beta": "true"}
        )
        (sent,) = house.asked("/v1/messages")
        assert sent["target"] == "/v1/messages?beta=true"
        headers = {name.lower(): value for name, value in sent["headers"]}
        assert headers["anthropic-version"].startswith("20")
        assert headers["anthropic-beta"] == "a-beta"
        assert house.key not in str(sent)

    def test_errors_of_the_gateway(self, claude: anthropic.Anthropic) -> None:
        with pytest.raises(anthropic.AuthenticationError) as refused:
            claude.with_options(api_key="ghc_wrong").messages.create(model=MODEL, max_tokens=9, messages=HELLO)
        assert refused.value.type == "authentication_error"
        with pytest.raises(anthropic.NotFoundError) as caught:
            claude.messages.create(model="none", max_tokens=9, messages=HELLO)
        assert caught.value.type == "not_found_error"
        with pytest.raises(anthropic.BadRequestError, match="embeddings"):
            claude.messages.count_tokens(model=EMBEDDER, messages=HELLO)

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (400, anthropic.BadRequestError),
            (404, anthropic.NotFoundError),
            (429, anthropic.RateLimitError),
            (500, anthropic.InternalServerError),
            (529, anthropic.InternalServerError),
        ],
    )
    def test_errors_of_engines(
        self, claude: anthropic.Anthropic, house: Standing, status: int, kind: type[anthropic.APIStatusError]
    ) -> None:
        body = {"type": "error", "error": {"type": "some_error", "message": "so it is"}}
        house.behave(status=status, body=body)
        with pytest.raises(kind, match="so it is"):
            claude.messages.create(model=MODEL, max_tokens=9, messages=HELLO)

    def test_a_stream_that_breaks_off_raises(self, claude: anthropic.Anthropic, house: Standing) -> None:
        house.behave(cut_after=4, cut="reset")
        got: list[str] = []
        with pytest.raises(anthropic.APIStatusError):
            stream = claude.messages.create(model=MODEL, max_tokens=9, messages=HELLO, stream=True)
            got.extend(event.type for event in stream)
        assert got[:2] == ["message_start", "content_block_start"]

    async def test_async(self, house: Standing) -> None:
        async with anthropic.AsyncAnthropic(base_url=house.url, api_key=house.key, max_retries=0) as awaited:
            async with awaited.messages.stream(model=MODEL, max_tokens=9, messages=HELLO) as stream:
                assert "".join([text async for text in stream.text_stream]) == SAID
            counted = await awaited.messages.count_tokens(model=MODEL, messages=HELLO)
            assert counted.input_tokens > 0
            with pytest.raises(anthropic.NotFoundError):
                await awaited.messages.create(model="none", max_tokens=9, messages=HELLO)


class TestMisspeakingEngines:
    """What an engine says reaches the client byte for byte, however it is cut, and whatever is wrong with it."""

    async def both(self, house: Standing, path: str, **more: Any) -> list[tuple[int, str, bytes]]:
        """What the engine says by itself, and through the gateway."""
        seen = []
        async with aiohttp.ClientSession(headers={"authorization": f"Bearer {house.key}"}) as http:
            for url in (house.engine.url, house.url):
                async with http.post(url + path, **question(path, **more)) as answer:
                    seen.append((answer.status, answer.headers["content-type"], await answer.read()))
        return seen

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("path", sorted(BY_PATH))
    async def test_cut_at_every_byte(self, house: Standing, path: str, stream: bool) -> None:
        house.behave(split=[1])
        alone, passed = await self.both(house, path, stream=stream)
        assert alone[0] == 200
        assert passed == alone

    @pytest.mark.parametrize("how", [{"mistyped": True}, {"content_type": "text/html"}, {"body": "{", "status": 200}])
    @pytest.mark.parametrize("path", sorted(BY_PATH))
    async def test_wrong_types(self, house: Standing, path: str, how: dict[str, Any]) -> None:
        house.behave(**how)
        alone, passed = await self.both(house, path)
        assert alone[0] == 200
        assert passed == alone


def question(path: str, **more: Any) -> dict[str, Any]:
    """How aiohttp is to ask this path for something that suits it."""
    if path not in FORMS:
        body = {"model": MODEL, "messages": HELLO, "input": "x", "documents": ["a"], "prompt": "p"}
        return {"json": body | more}
    fields = {name: str(value).lower() for name, value in more.items()}
    form = aiohttp.FormData({"model": MODEL, "prompt": "p", **fields})
    form.add_field("image" if "images" in path else "file", b"RIFF" * 1000, filename="a")
    return {"data": form}
