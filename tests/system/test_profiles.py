"""Roles and aliases over real processes: from the command of an operator, or a file, to the answer of a client."""

from pathlib import Path

import geniehive
from geniehive.v1 import request_pb2, role_pb2
from tests.support.daemons import Cluster, cluster_health
from tests.support.processes import until

THEIRS = "roles:\n- {role_id: theirs, operation: chat}\naliases: {claude-*: theirs}\n"


def role(role_id: str) -> role_pb2.Role:
    return role_pb2.Role(role_id=role_id, operation=request_pb2.OPERATION_CHAT)


async def test_roles_outlive_a_kill_and_the_file_is_read_again(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "roles.yaml"
    file.write_text(THEIRS)
    sets = f"catalogue={file}"
    await cluster.start_control(sets)
    await cluster.start_node("a", {"engine": await cluster.start_engine("a", "m")})
    await cluster.start_gateway()
    await cluster.until_answers("theirs")
    async with geniehive.connect(cluster.control_address, key=cluster.admin_key) as hive:
        made = await hive.create_role(role("mine"))
        await hive.set_alias("short", "mine")
    cluster.control.kill()
    await cluster.control.ended()
    await cluster.start_control(sets)
    async with geniehive.connect(cluster.control_address, key=cluster.admin_key) as hive:
        found = {found.role_id: found for found in await hive.list_roles()}
        assert found["mine"] == made
        assert found["theirs"].owner == role_pb2.OWNER_FILE
        assert {alias.alias for alias in await hive.list_aliases()} >= {"short", "claude-*"}
    for name in ("mine", "short", "theirs", "claude-opus"):
        await cluster.until_answers(name)
    # A fault in the file changes nothing but what is told.
    file.write_text(THEIRS + "colour: red\n")
    async with geniehive.connect(cluster.control_address, key=cluster.admin_key) as hive:

        async def told() -> bool:
            warnings = "\n".join((await cluster_health(hive)).warnings)
            return f"{file}, line 4: unknown key 'colour'" in warnings

        await until("the fault is told", told, 10.0)
    assert await cluster.answers("theirs")
    file.write_text(THEIRS.replace("theirs", "other"))
    await cluster.until_answers("other")
    status, _, _ = await cluster.chat("theirs")
    assert status == 404
