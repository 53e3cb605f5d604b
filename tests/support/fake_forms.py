"""What a fake engine answers to forms with files: speech to text in all its formats, and pictures."""

import re
from typing import Any, NamedTuple

from tests.support.fake_answers import Question, Stream, data, images
from tests.support.fake_runtimes import Reply


class Part(NamedTuple):
    name: str
    filename: str | None
    content_type: str | None
    data: bytes


def parts(content_type: str, body: bytes) -> list[Part]:
    """The parts of a form, in order. ValueError if it is none, or ends too early."""
    found = re.search(r'(?i)^multipart/form-data;.*boundary="?([^";]+)', content_type)
    if found is None:
        raise ValueError("no multipart/form-data with a boundary")
    line = b"\r\n--" + found[1].encode()
    pieces = (b"\r\n" + body).split(line)
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise ValueError("the form does not end")
    return [_part(piece) for piece in pieces[1:-1]]


def _part(piece: bytes) -> Part:
    head, border, content = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    if not border:
        raise ValueError("a part without a head")
    headers = {k.strip().lower(): v.strip() for k, _, v in (h.partition(":") for h in head.decode().split("\r\n"))}
    names = dict(re.findall(r';\s*(\w+)="((?:[^"\\]|\\.)*)"', headers.get("content-disposition", "")))
    if "name" not in names:
        raise ValueError("a part without a name")
    return Part(names["name"], names.get("filename"), headers.get("content-type"), content)


def fields(found: list[Part]) -> dict[str, Any]:
    """The fields that are text, as a body of JSON would have them; of files their sizes."""
    return {p.name: p.data.decode() if p.filename is None else len(p.data) for p in found}


# The file that each path must have.
_FILES = {
    "/v1/audio/transcriptions": "file",
    "/v1/audio/translations": "file",
    "/v1/images/edits": "image",
    "/v1/images/variations": "image",
}
PATHS = frozenset(_FILES)


def missing(path: str, body: dict[str, Any]) -> str | None:
    """The file that is not there."""
    wanted = _FILES[path]
    return None if isinstance(body.get(wanted, body.get(wanted + "[]")), int) else wanted


def answer(question: Question) -> Reply | Stream:
    return images(question) if question.path.startswith("/v1/images/") else _spoken(question)


def _clock(seconds: float, comma: str) -> str:
    return f"00:00:{int(seconds):02}{comma}{int(seconds % 1 * 1000):03}"


def _spoken(q: Question) -> Reply | Stream:
    form = q.body.get("response_format") or "json"
    usage = {"type": "tokens", "input_tokens": 14, "output_tokens": len(q.words), "total_tokens": 14 + len(q.words)}
    if q.body.get("stream") == "true":
        deltas = [data({"type": "transcript.text.delta", "delta": word}) for word in q.words]
        return Stream([*deltas, data({"type": "transcript.text.done", "text": q.text, "usage": usage})])
    match form:
        case "text":
            return Reply(q.text + "\n", content_type="text/plain")
        case "srt":
            return Reply(f"1\n{_clock(0, ',')} --> {_clock(1.5, ',')}\n{q.text}\n\n", content_type="text/plain")
        case "vtt":
            cue = f"WEBVTT\n\n{_clock(0, '.')} --> {_clock(1.5, '.')}\n{q.text}\n\n"
            return Reply(cue, content_type="text/vtt")
        case "verbose_json":
            segment = {"id": 0, "seek": 0, "start": 0.0, "end": 1.5, "text": q.text, "tokens": [1, 2]}
            segment |= {"temperature": 0.0, "avg_logprob": -0.1, "compression_ratio": 1.0, "no_speech_prob": 0.01}
            task = "translate" if q.path.endswith("translations") else "transcribe"
            whole = {"task": task, "language": "english", "duration": 1.5, "text": q.text, "segments": [segment]}
            return Reply({**whole, "usage": {"type": "duration", "seconds": 2}})
    return Reply({"text": q.text, "usage": usage})
