"""`geniehive explain MODEL`: who can serve a name, who can't and why, and where a request would go now."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from geniehive.cli import asking, common, credentials, output
from geniehive.cli.output import Cell
from geniehive.kit.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE, UserError
from geniehive.rules.operations import BY_WORD

if TYPE_CHECKING:
    from geniehive.cli.common import Commands

_SECONDS = 15.0
# As the gateway has them, in the order of the columns.
_TERMS = ("load", "queue", "prefill", "decode", "crowd")
_OUTCOMES = {
    "waits": "every endpoint that could take it is at its limit: it would wait for a turn",
    "unfit": "nobody can take such a request",
    "unserved": "nobody can serve the name now",
}


def add(commands: "Commands") -> None:
    made = common.add_command(
        commands,
        "explain",
        "why a name leads where it does, and where a request would go now",
        run,
        "Show every endpoint of a name: the gate that rules it out, or its wait in seconds, term by term, as the\n"
        "gateway sees it now; and which of them the next request would be sent to. WAIT is what the client waits;\n"
        "CROWD is what others lose by it, which counts for the choice alone. BUSY: requests there, of its slots.\n"
        "TOK/S: of one answer. What is only assumed has a question mark.",
    )
    made.add_argument("model", metavar="MODEL", help="a name that `geniehive models` lists")
    made.add_argument(
        "--operation", metavar="WHAT", default="chat", help=f"what is asked: {', '.join(BY_WORD)} (default: chat)"
    )
    made.add_argument("--prompt-tokens", metavar="N", type=_count, help="the length of the prompt (default: 500)")
    made.add_argument("--max-tokens", metavar="N", type=_count, help="the longest answer (default: as usual there)")
    made.add_argument("--tools", action="store_true", help="the request has tools")
    made.add_argument("--images", action="store_true", help="the request has images")
    made.add_argument("--session", metavar="NAME", help="of this conversation: who has it in its cache is faster")
    asking.add_gateway_options(made, "a key of scope read")


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) > 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of tokens")
    return int(text)


def run(given: argparse.Namespace) -> int:
    if given.operation not in BY_WORD:
        raise UserError(f"--operation {given.operation!r}: use {', '.join(BY_WORD)}", EXIT_USAGE)
    found = _ask(given)
    if given.json:
        output.show_json(found)
    else:
        show(found)
    return EXIT_OK


def _ask(given: argparse.Namespace) -> dict[str, Any]:
    from http.client import HTTPException

    link = credentials.gateway(given, "admin.key")
    body = json.dumps(_request(given)).encode()
    try:
        with asking.posted(link, "/v1/cluster/routes/explain", body, _SECONDS, asking.no_gateway(given)) as answer:
            if answer.status != 200:
                raise asking.refused(answer, link)
            found = json.loads(answer.read())
    except TimeoutError as error:
        raise UserError(f"{link.target} was silent for {_SECONDS:g} s", EXIT_FAILED) from error
    except (OSError, HTTPException, ValueError) as error:
        raise UserError(f"the answer was cut off: {error or type(error).__name__}", EXIT_FAILED) from error
    if not isinstance(found, dict):
        raise UserError(f"{link.target} gave no explanation; is it a gateway?", EXIT_FAILED)
    return found


def _request(given: argparse.Namespace) -> dict[str, Any]:
    asked = {
        "model": given.model,
        "operation": given.operation,
        "prompt_tokens": given.prompt_tokens,
        "max_tokens": given.max_tokens,
        "tools": given.tools,
        "images": given.images,
        "session": given.session,
    }
    return {name: value for name, value in asked.items() if value is not None}


def show(found: dict[str, Any]) -> None:
    kind = {"asset": "model"}.get(found["kind"] or "", found["kind"] or "")
    target = f" for {found['target']}" if found["target"] else ""
    lines = [
        ("name", f"{found['model']}{f' ({kind}{target})' if kind else ''}"),
        ("request", f"{found['operation']}, about {found['prompt_tokens']} tokens of prompt"),
    ]
    for tier in found["tiers"]:
        expected = tier["expected_completion_tokens"]
        length = f"; answers of about {expected} tokens" if expected else ""
        lines.append((f"tier {tier['tier']}", f"{tier['label']}: {tier['strategy']}{length}"))
    if found["shadows"]:
        lines.append(("hides", f"another {', '.join(found['shadows'])} of this name"))
    lines.append(("now", f"sent to {found['chosen']}" if found["chosen"] else _OUTCOMES[found["outcome"]]))
    if found["control_unavailable"]:
        lines.append(("control", f"not asked: {found['control_unavailable']}. Scores and gates of its own are missing"))
    output.show_lines(lines)
    if policies := _policies(found["endpoints"]):
        output.show_lines(policies)
    print()
    _show_endpoints(found["endpoints"])


def _show_endpoints(endpoints: list[dict[str, Any]]) -> None:
    if not endpoints:
        print("nobody offers it")
        return
    output.show_table(
        ("NOW", "TIER", "ENDPOINT", "WAIT", *(term.upper() for term in _TERMS), "SCORE", "BUSY", "TOK/S", "WHY NOT"),
        [_row(one) for one in endpoints],
    )


def _row(one: dict[str, Any]) -> list[str | Cell]:
    terms = one["wait_terms"] or {}
    score = one["match_score"]
    why_not = f"{one['gate'].replace('_', ' ')}: {one['reason']}" if one["gate"] else one["not_now"] or ""
    tone: output.Tone = "dim" if one["gate"] else "good" if one["chosen"] else ""
    return [
        Cell("sent" if one["chosen"] else "", "good"),
        "" if one["tier"] is None else str(one["tier"]),
        Cell(one["endpoint"], tone),
        Cell(_seconds(one["wait_seconds"]), "strong"),
        *(_seconds(terms.get(term)) for term in _TERMS),
        "" if score is None else f"{score:.2f}",
        _busy(one),
        _speed(one),
        Cell(why_not, "warn" if why_not else ""),
    ]


def _busy(one: dict[str, Any]) -> str:
    if one.get("slots") is None:
        return ""
    return f"{one['in_flight'] + one['others']}/{one['slots']}{'' if one['slots_known'] else '?'}"


def _speed(one: dict[str, Any]) -> str:
    speed = one.get("tokens_per_second")
    if speed is None:
        return ""
    return f"{speed:.3g}{'?' if one['speed_from'] == 'assumed' else ''}"


def _policies(endpoints: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """What becomes of the body: once, if all have the same."""
    known = [(one["endpoint"], one.get("request_policy")) for one in endpoints if "request_policy" in one]
    told = {json.dumps(policy, sort_keys=True) for _, policy in known}
    if len(told) == 1:
        policy = known[0][1]
        return [("policy", json.dumps(policy, ensure_ascii=False))] if policy else []
    return [("policy", f"{name}: {json.dumps(policy, ensure_ascii=False)}") for name, policy in known if policy]


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if not seconds:
        return "0"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
