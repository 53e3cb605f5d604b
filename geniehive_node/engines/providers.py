"""Hosted providers with an OpenAI-compatible API: where they are, and where their keys usually are."""

from typing import NamedTuple

from geniehive.rules.operations import Operation

# Providers have left the completions of old behind.
CHAT_ALONE = (Operation.CHAT,)


class Provider(NamedTuple):
    """operations: of its models that write."""

    url: str
    key_variable: str
    operations: tuple[Operation, ...] = CHAT_ALONE


KNOWN = {
    "openai": Provider("https://api.openai.com/v1", "OPENAI_API_KEY", (Operation.CHAT, Operation.RESPONSES)),
    "openrouter": Provider("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "groq": Provider("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "mistral": Provider("https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    "deepseek": Provider("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    "together": Provider("https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    "fireworks": Provider("https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY"),
    "cerebras": Provider("https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
    "xai": Provider("https://api.x.ai/v1", "XAI_API_KEY"),
    "gemini": Provider("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
    "huggingface": Provider("https://router.huggingface.co/v1", "HF_TOKEN"),
}
