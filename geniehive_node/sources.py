"""From settings to the places where engines are looked for, with their keys."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from geniehive.kit import address, state
from geniehive.kit.errors import UserError
from geniehive.kit.http1 import Origin, split_url
from geniehive.rules import names, request_policy
from geniehive.rules.model import PromptAction, RequestPolicy, SystemPrompt
from geniehive.rules.operations import BY_WORD
from geniehive_node.core.looks import Choice, ModelPolicy, Source
from geniehive_node.core.ways import STANDARD_BASE
from geniehive_node.engines.ask import Target
from geniehive_node.engines.providers import KNOWN
from geniehive_node.settings import EngineSettings, PolicySettings, ProviderSettings


class Place(NamedTuple):
    source: Source
    target: Target


def places(
    engines: Sequence[EngineSettings],
    providers: Sequence[ProviderSettings],
    ports: Iterable[int],
    way: Choice = Choice.AUTO,
) -> list[Place]:
    """Those that are configured first, then this machine's well-known `ports` that are not among them.

    way: of engines that have none of their own. Providers need a key, so it is always the relay.
    UserError names the entry that can't be used.
    """
    found = [_engine(entry, f"engines[{index}]", way) for index, entry in enumerate(engines)]
    found += [_provider(entry, f"providers[{index}]") for index, entry in enumerate(providers)]
    _check_unique([p.source.key for p in found], "are at")
    _check_unique([p.source.name for p in found if p.source.name is not None], "are named")
    # What is configured is not also discovered.
    taken = {(address.is_loopback(p.target.origin.host), p.target.origin.port) for p in found}
    for port in ports:
        if (True, port) not in taken:
            found.append(_local(port, way))
    return found


def _local(port: int, way: Choice) -> Place:
    origin = Origin("http", "127.0.0.1", port)
    return Place(Source(key=str(origin), url=str(origin), loopback=True, way=way), Target(origin, STANDARD_BASE))


def _check_unique(given: Sequence[str], how: str) -> None:
    for value in given:
        if given.count(value) > 1:
            raise UserError(f"two engines or providers {how} {value!r}; one is enough, or one of them is wrong")


def _engine(entry: EngineSettings, where: str, way: Choice) -> Place:
    if entry.name is not None:
        _check_name(entry.name, f"{where}.name")
    origin, base_path = _address(entry.url, f"{where}.url")
    source = Source(
        key=f"{origin}{base_path if base_path != STANDARD_BASE else ''}",
        url=str(origin),
        base_path=base_path,
        loopback=address.is_loopback(origin.host),
        has_key=bool(entry.key_file or entry.key_env),
        configured=True,
        name=entry.name,
        runtime=None if entry.runtime == "auto" else entry.runtime,
        operations=tuple(BY_WORD[word] for word in entry.operations or ()),
        models=tuple(entry.models or ()),
        demo=entry.demo,
        way=way if entry.way is None else Choice(entry.way),
        policies=_policies(entry.request_policies, where),
        concurrency_limit=_limit(entry.concurrency_limit, where),
    )
    key = read_key(entry.key_file, entry.key_env, where) if source.has_key else None
    return Place(source, Target(origin, base_path, key))


def _provider(entry: ProviderSettings, where: str) -> Place:
    _check_name(entry.name, f"{where}.name")
    known = KNOWN.get(entry.name)
    url = entry.url or (known.url if known else None)
    if url is None:
        raise UserError(
            f"{where}: {entry.name!r} is not a known provider ({', '.join(KNOWN)}); for another one give its url too"
        )
    origin, base_path = _address(url, f"{where}.url")
    if entry.key_file or entry.key_env:
        key = read_key(entry.key_file, entry.key_env, where)
    elif known is None:
        raise UserError(f"{where}: the provider {entry.name!r} needs a key; give key_file or key_env")
    elif not os.environ.get(known.key_variable):
        raise UserError(
            f"{where}: the provider {entry.name!r} needs a key; set the environment variable {known.key_variable}, "
            "or give key_file"
        )
    else:
        key = read_key(None, known.key_variable, where)
    source = Source(
        key=f"provider {entry.name} ({origin})",
        url=str(origin),
        base_path=base_path,
        loopback=address.is_loopback(origin.host),
        has_key=True,
        configured=True,
        name=entry.name,
        runtime=entry.name,
        operations=tuple(BY_WORD[word] for word in entry.operations or ()),
        models=tuple(entry.models or ()),
        hosted=True,
        policies=_policies(entry.request_policies, where),
        concurrency_limit=_limit(entry.concurrency_limit, where),
    )
    return Place(source, Target(origin, base_path, key))


def read_key(file: str | None, env: str | None, where: str) -> str:
    """The key in a file or an environment variable. UserError says which is missing or wrong; never the key."""
    if (file is None) == (env is None):
        raise UserError(f"{where}: the key is either in a file or in an environment variable; name one of them")
    if file is not None:
        key = state.read_secret(Path(file))
        source = f"the key file {file}"
    else:
        assert env is not None
        key = os.environ.get(env, "").strip()
        source = f"the environment variable {env}"
        if not key:
            raise UserError(f"{where}: {source} is not set")
    if not all("!" <= letter <= "~" for letter in key):
        raise UserError(f"{where}: {source} holds letters that no key has")
    return key


def _limit(given: int | None, where: str) -> int | None:
    if given is not None and given < 1:
        raise UserError(f"{where}.concurrency_limit: {given} must be at least 1; leave it out for no limit")
    return given


def _policies(entries: Sequence[PolicySettings], where: str) -> tuple[ModelPolicy, ...]:
    made = []
    for index, entry in enumerate(entries):
        given = entry.system_prompt
        prompts = [] if given is None else [(a, getattr(given, a.name.lower())) for a in PromptAction]
        prompts = [(action, text) for action, text in prompts if text is not None]
        if given is not None and len(prompts) != 1:
            raise UserError(f"{where}.request_policies[{index}].system_prompt: give one of prepend, append and replace")
        policy = RequestPolicy(
            operations=tuple(BY_WORD[word] for word in entry.operations or ()),
            defaults_json=json.dumps(entry.defaults) if entry.defaults else "",
            overrides_json=json.dumps(entry.overrides) if entry.overrides else "",
            system_prompt=SystemPrompt(action=prompts[0][0], text=prompts[0][1]) if prompts else None,
            user_template=entry.user_template,
        )
        try:
            request_policy.check(policy)
        except ValueError as error:
            raise UserError(f"{where}.request_policies[{index}]: {error}") from error
        made.append(ModelPolicy(models=tuple(entry.models or ("*",)), policy=policy))
    return tuple(made)


def _address(url: str, where: str) -> tuple[Origin, str]:
    try:
        origin, base_path = split_url(url)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error
    return origin, base_path or STANDARD_BASE


def _check_name(name: str, where: str) -> None:
    if not names.is_id(name):
        raise UserError(f"{where} {name!r}: up to 63 of a-z, 0-9, dot, dash and underscore are allowed")
