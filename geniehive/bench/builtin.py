"""The workloads that are there without a file.

Whoever changes what one asks or checks gives it the next version: samples of different versions are never compared.
"""

import random
import re
from typing import Any

from geniehive.bench import checks as c
from geniehive.bench.workload import Request, Workload


def _chance(workload: str, seed: int, number: int) -> random.Random:
    return random.Random(f"{workload} {seed} {number}")


def _chat(chance: random.Random, system: str, user: str, most: int, *checks: c.Check, **more: Any) -> Request:
    # At the very beginning, so that no engine has the rest of the prompt in its cache.
    mark = f"{chance.getrandbits(40):010x}"
    messages = [{"role": "system", "content": f"Case {mark}. {system}"}, {"role": "user", "content": user}]
    body = {"messages": messages, "max_tokens": most, "temperature": 0, **more}
    return Request(body, checks, fresh=True)


# --- chat.short_reasoning

_REASONING = (
    "You solve short problems in arithmetic for a small shop. Think in a few short steps, one on each line, and use "
    "the numbers exactly as they are given. Do not explain the method, do not repeat the problem, and do not use any "
    "formatting. The last line of your answer must have this form, with the result as digits: ANSWER: 123"
)
_ANSWER = re.compile(r"ANSWER:\s*[-+]?\$?\d", re.IGNORECASE)


def _short_reasoning(seed: int, number: int) -> Request:
    chance = _chance("chat.short_reasoning/1", seed, number)
    a, b, x, y = chance.randint(12, 48), chance.randint(3, 9), chance.randint(5, 25), chance.randint(2, 11)
    problems = (
        (f"A box holds {a} pencils. There are {b} boxes, and {x} pencils are sold. How many are left?", a * b - x),
        (f"A notebook costs {b} coins and a pen {y}. What do {x} notebooks and {a} pens cost?", b * x + y * a),
        (f"A train has {b} cars with {a} seats each. {x} seats are taken. How many are free?", a * b - x),
        (f"Mia has {a} stickers. She gets {y} on each of {b} days, then gives {y} away. How many now?", a + y * b - y),
        (f"{b * y} apples are shared by {b} children, and each gets {x} more. How many has each?", y + x),
    )
    text, right = problems[number % len(problems)]
    return _chat(chance, _REASONING, text, 256, c.Number(right), c.Matches(_ANSWER))


# --- chat.concise_support

_SUPPORT = (
    "You answer customers of a shop for garden tools. Be friendly and brief: at most 60 words, in one paragraph, "
    "without headings or lists. Name the order by its number, and write numbers as digits. Use only these facts. "
    "Parcels take {parcel} working days. Goods can be returned within {back} days. Refunds reach the bank account "
    "{refund} working days after the parcel has arrived. The phone line is open from 9 to 17. Never promise anything "
    "else, and never speak of yourself as a program."
)


def _concise_support(seed: int, number: int) -> Request:
    chance = _chance("chat.concise_support/1", seed, number)
    parcel, back, refund = chance.randint(2, 5), chance.randint(14, 40), chance.randint(6, 12)
    order = f"{chance.choice('ABCDEFGH')}{chance.randint(10_000, 99_999)}"
    name = chance.choice(("Ana", "Ben", "Chloe", "Deniz", "Emil", "Farah"))
    tool = chance.choice(("rake", "spade", "hose", "pruning saw", "watering can"))
    questions = (
        (f"my {tool} from order {order} does not fit me. Until when may I send it back?", str(back)),
        (f"I sent back the {tool} of order {order}. When do I get my money?", str(refund)),
        (f"I ordered a {tool} today, the number is {order}. When will it be here?", str(parcel)),
    )
    text, fact = questions[number % len(questions)]
    system = _SUPPORT.format(parcel=parcel, back=back, refund=refund)
    user = f"Hello, {text} Thank you, {name}"
    checks = (
        c.AtMost(60),
        c.Contains((order,)),
        c.Matches(re.compile(rf"(?<!\d){fact}(?!\d)")),
        c.Lacks(("as an ai", "language model", "i'm an ai", "i am an ai")),
    )
    return _chat(chance, system, user, 160, *checks)


# --- json_schema

_ORDER = {
    "type": "object",
    "properties": {
        "customer": {"type": "string"},
        "article": {"type": "string"},
        "quantity": {"type": "integer", "minimum": 1},
        "urgent": {"type": "boolean"},
        "delivery": {"type": "string", "enum": ["pickup", "parcel", "courier"]},
    },
    "required": ["customer", "article", "quantity", "urgent", "delivery"],
    "additionalProperties": False,
}
_EXTRACT = (
    "You turn orders that people write into JSON. Answer with one JSON object and nothing else: customer (the name), "
    "article (in the singular), quantity (a whole number), urgent (true or false), delivery (pickup, parcel or "
    "courier)."
)


def _json_schema(seed: int, number: int) -> Request:
    chance = _chance("json_schema/1", seed, number)
    name = chance.choice(("Ines Roth", "Omar Haddad", "Lea Novak", "Tom Berg", "Yuki Mori"))
    article = chance.choice(("lamp", "chair", "table", "carpet", "mirror"))
    quantity, urgent = chance.randint(2, 9), chance.random() < 0.5
    delivery = chance.choice(("pickup", "parcel", "courier"))
    how = {
        "pickup": "I will pick everything up myself",
        "parcel": "Please send it as a parcel",
        "courier": "Please send it by courier",
    }[delivery]
    haste = "This is urgent" if urgent else "There is no hurry, it is not urgent"
    goods = f"{quantity} {article}s"
    user = f"Hello, my name is {name}. I would like {goods}. {how}. {haste}."
    values = {"customer": name, "article": article, "quantity": quantity, "urgent": urgent, "delivery": delivery}
    wanted = {"type": "json_schema", "json_schema": {"name": "order", "strict": True, "schema": _ORDER}}
    return _chat(chance, _EXTRACT, user, 200, c.Json(_ORDER), c.JsonFields(values), response_format=wanted)


# --- tool_call


def _tool(name: str, description: str, **properties: dict[str, Any]) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


_CITY = {"type": "string", "description": "The name of the city alone"}
_TOOLS = [
    _tool(
        "get_weather",
        "Get the weather in a city now",
        city=_CITY,
        unit={"type": "string", "enum": ["celsius", "fahrenheit"]},
    ),
    _tool("set_timer", "Start a timer", minutes={"type": "integer", "description": "How long, in minutes"}),
    _tool(
        "convert_currency",
        "Convert an amount of money",
        amount={"type": "number"},
        source={"type": "string", "description": "Three letters, such as EUR"},
        target={"type": "string", "description": "Three letters, such as EUR"},
    ),
    _tool("find_train", "Find the next train between two cities", origin=_CITY, destination=_CITY),
]
_ASSISTANT = "You help by calling tools. Call the one tool that does what is asked, once, and say nothing else."


def _tool_call(seed: int, number: int) -> Request:
    chance = _chance("tool_call/1", seed, number)
    one, other = chance.sample(("Lisbon", "Oslo", "Vienna", "Kyoto", "Toronto", "Nairobi"), 2)
    minutes, amount = chance.randint(3, 55), chance.randint(11, 990)
    unit = chance.choice(("celsius", "fahrenheit"))
    source, target = chance.sample(("EUR", "USD", "JPY", "CHF"), 2)
    tasks: tuple[tuple[str, str, dict[str, Any]], ...] = (
        (f"What is the weather in {one} now, in {unit}?", "get_weather", {"city": one, "unit": unit}),
        (f"Tell me when {minutes} minutes are over.", "set_timer", {"minutes": minutes}),
        (
            f"How much are {amount} {source} in {target}?",
            "convert_currency",
            {"amount": amount, "source": source, "target": target},
        ),
        (f"When does the next train go from {one} to {other}?", "find_train", {"origin": one, "destination": other}),
    )
    text, tool, arguments = tasks[number % len(tasks)]
    return _chat(chance, _ASSISTANT, text, 200, c.Called(tool, arguments), tools=_TOOLS, tool_choice="auto")


# --- long_context

_SUBJECTS = ("The harbour office", "A clerk", "The night watch", "An inspector", "The baker", "A surveyor", "The ferry")
_VERBS = ("noted", "reported", "moved", "counted", "repaired", "forgot", "described", "measured")
_OBJECTS = (
    "two crates of rope",
    "the northern gate",
    "a box of lanterns",
    "the old scales",
    "seven barrels",
    "the map",
)
_TIMES = ("before dawn", "after the rain", "at noon", "on the following day", "without delay", "late in the evening")
# About 2,600 tokens: a context of 4,096 has room for them and the answer.
_LINES = 150


def _long_context(seed: int, number: int) -> Request:
    chance = _chance("long_context/1", seed, number)
    lines = [
        f"{n}. {chance.choice(_SUBJECTS)} {chance.choice(_VERBS)} {chance.choice(_OBJECTS)} {chance.choice(_TIMES)}."
        for n in range(1, _LINES + 1)
    ]
    code = f"{chance.randint(100_000, 999_999)}"
    who = chance.choice(("the lighthouse", "the customs house", "the rope store", "the boat yard"))
    # The depth goes through the whole text.
    depth = (number % 10 * _LINES) // 10 + chance.randrange(_LINES // 10)
    lines.insert(depth, f"The code of {who} is {code}.")
    user = f"{chr(10).join(lines)}\n\nWhat is the code of {who}? Answer with the six digits and nothing else."
    system = "You answer questions about a log book. What you need stands in it once."
    return _chat(chance, system, user, 64, c.Contains((code,)))


# --- embeddings

_TRIPLES = (
    ("How do I reset my password?", "I forgot my password and need a new one.", "The soup needs more salt."),
    ("The cat sleeps on the sofa.", "A kitten is napping on the couch.", "Interest rates rose by half a percent."),
    ("Book a flight to Paris.", "I need plane tickets to Paris.", "My bicycle has a flat tyre."),
    ("The server ran out of memory.", "The machine crashed because its RAM was full.", "We picked cherries all day."),
    ("He plays the violin well.", "She is a gifted violinist.", "The printer is out of paper."),
    ("It will rain tomorrow.", "The forecast for the next day is wet.", "This function returns a list of numbers."),
)


def _embeddings(seed: int, number: int) -> Request:
    chance = _chance("embeddings/1", seed, number)
    triple = _TRIPLES[(number + seed) % len(_TRIPLES)]
    order = chance.sample(range(3), 3)
    inputs = [triple[which] for which in order]
    places = [order.index(which) for which in range(3)]
    return Request({"input": inputs, "encoding_format": "float"}, (c.Vectors(3), c.Closer(*places)))


BUILTIN = {
    made.name: made
    for made in (
        Workload("chat.short_reasoning/1", "chat", "word problems; the number must be right", _short_reasoning),
        Workload("chat.concise_support/1", "chat", "answers to customers: facts, form, length", _concise_support),
        Workload("json_schema/1", "chat", "orders into JSON: schema and values", _json_schema),
        Workload("tool_call/1", "chat", "the right tool with the right arguments", _tool_call),
        Workload("long_context/1", "chat", "a code in about 2,600 tokens", _long_context, usual=10),
        Workload("embeddings/1", "embeddings", "vectors: form, and what is near to what", _embeddings),
    )
}


def find(name: str) -> Workload | None:
    """By its name, or without a version: the newest."""
    if name in BUILTIN:
        return BUILTIN[name]
    found = [workload for known, workload in BUILTIN.items() if known.rpartition("/")[0] == name]
    return max(found, key=lambda workload: int(workload.name.rpartition("/")[2]), default=None)
