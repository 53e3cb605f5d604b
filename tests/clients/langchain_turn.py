"""Run by test_agents in an environment with langchain-openai; prints what it saw as JSON.

The base URL, the key and the model come as arguments.
"""

import json
import sys
from typing import Any

from langchain_core.messages import ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"rain in {city}"


def main(url: str, key: str, model: str) -> dict[str, Any]:
    common: dict[str, Any] = {"base_url": url, "api_key": key, "model": model, "max_retries": 0, "timeout": 10}
    chat = ChatOpenAI(**common)
    counted = ChatOpenAI(**common, stream_usage=True)
    whole = chat.invoke("hello")
    pieces = list(chat.stream("hello"))
    usages = [piece.usage_metadata for piece in counted.stream("hello") if piece.usage_metadata]
    equipped = chat.bind_tools([weather])
    asked = equipped.invoke("hello")
    call = asked.tool_calls[0]
    told = equipped.invoke(
        [("user", "hello"), asked, ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])]
    )
    responses = ChatOpenAI(**common, use_responses_api=True)
    plain = OpenAIEmbeddings(**common, check_embedding_ctx_length=False)
    vectors = plain.embed_documents(["a", "b"])
    try:
        chat.with_config().bind(model="none").invoke("hello")
        refused = "nothing"
    except Exception as error:  # noqa: BLE001 - its name is what is asked for
        refused = type(error).__name__
    return {
        "text": whole.content,
        "usage": whole.usage_metadata and whole.usage_metadata["output_tokens"],
        "streamed": "".join(str(piece.content) for piece in pieces),
        "usages": [usage["output_tokens"] for usage in usages],
        "tool": call["name"],
        "told": told.content,
        "responses": responses.invoke("hello").text,
        "vectors": [len(vector) for vector in vectors],
        "refused": refused,
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
