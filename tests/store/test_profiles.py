"""Roles and aliases in the database."""

from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa

from geniehive.rules.model import (
    Alias,
    Owner,
    PromptAction,
    RequestPolicy,
    Role,
    RoutingPolicy,
    Rule,
    Strategy,
    SystemPrompt,
)
from geniehive.rules.operations import Ability, Operation
from geniehive_control.ports import Audit
from geniehive_control.store.database import Database, open_database
from geniehive_control.store.tables import audit, roles

LINE = Audit(at=5.0, caller="local-admin", action="do", target="it")
ROLE = Role(
    role_id="coder",
    display_name="Cöder",
    operation=Operation.CHAT,
    request_policy=RequestPolicy(
        defaults_json='{"n": 4096}', system_prompt=SystemPrompt(action=PromptAction.REPLACE, text="a\x00b")
    ),
    routing_policy=RoutingPolicy(
        preferred_labels={"a": "b"},
        min_context_tokens=1,
        required_abilities=(Ability.TOOLS,),
        trust_tiers=Rule(denied=("x",)),
        allow_hosted=False,
        strategy=Strategy.SCORED,
    ),
)
ALIAS = Alias(alias="claude-*", target="coder")


async def test_they_come_back_as_they_were(database: Database, database_url: str, tmp_path: Path) -> None:
    await database.put_role(msgspec.structs.replace(ROLE, owner=Owner.API, etag="x"), LINE)
    await database.put_role(Role(role_id="b", operation=Operation.MESSAGES), LINE)
    await database.put_alias(msgspec.structs.replace(ALIAS, owner=Owner.API, etag="x"), LINE)
    again = await open_database(database_url, tmp_path)
    stored = await again.load()
    await again.close()
    assert stored.roles == (Role(role_id="b", operation=Operation.MESSAGES), ROLE)
    assert stored.aliases == (ALIAS,)


async def test_changed_and_dropped(database: Database) -> None:
    await database.put_role(ROLE, LINE)
    await database.put_role(msgspec.structs.replace(ROLE, display_name="other"), LINE)
    await database.put_alias(ALIAS, LINE)
    await database.put_alias(msgspec.structs.replace(ALIAS, target="other"), LINE)
    stored = await database.load()
    assert [role.display_name for role in stored.roles] == ["other"]
    assert [alias.target for alias in stored.aliases] == ["other"]
    await database.drop_role("coder", LINE)
    await database.drop_alias("claude-*", LINE)
    stored = await database.load()
    assert (stored.roles, stored.aliases) == ((), ())
    async with database._engine.connect() as connection:
        assert await connection.scalar(sa.select(sa.func.count()).select_from(audit)) == 6


async def test_one_that_can_not_be_read_stays_for_the_version_that_can(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    await database.put_role(ROLE, LINE)
    async with database._engine.begin() as connection:
        await connection.execute(sa.insert(roles).values(role_id="new", body='{"role_id": "new", "operation": 99}'))
    assert [role.role_id for role in (await database.load()).roles] == ["coder"]
    assert "role new can't be read by this version" in caplog.text
    async with database._engine.connect() as connection:
        assert await connection.scalar(sa.select(sa.func.count()).select_from(roles)) == 2
