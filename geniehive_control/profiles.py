"""What operators change of roles and aliases: checked by the core, stored with a line of the audit, then in force.

One change at a time, so that what was checked is still so when it is stored.
"""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from geniehive.rules.model import Alias, Role
from geniehive_control.core import events as e
from geniehive_control.core.catalogue import Catalogue
from geniehive_control.core.events import Event
from geniehive_control.hub import Hub
from geniehive_control.ports import Audit, Store

_Write = Callable[[Audit], Coroutine[Any, Any, None]]


class ProfileChanges:
    """Each gives the object as it is then. Refusal: as in admin_service.proto. StoreUnavailable: all is as before."""

    def __init__(self, hub: Hub, store: Store) -> None:
        self._hub = hub
        self._store = store

    @property
    def _catalogue(self) -> Catalogue:
        return self._hub.registry.catalogue

    async def create_role(self, role: Role, caller: str) -> Role:
        async def create() -> Role:
            made = self._catalogue.created(role)
            write = partial(self._store.put_role, made)
            await self._keep(caller, "create role", made.role_id, write, e.RolePut(role=made))
            return made

        return await self._hub.change(create)

    async def update_role(self, role_id: str, etag: str, change: Callable[[Role], Role], caller: str) -> Role:
        """change: gives the role that is to be, from the one that is."""

        async def update() -> Role:
            made = self._catalogue.updated(change(self._catalogue.role_to_change(role_id, etag)), etag)
            write = partial(self._store.put_role, made)
            await self._keep(caller, "update role", role_id, write, e.RolePut(role=made))
            return made

        return await self._hub.change(update)

    async def delete_role(self, role_id: str, etag: str, caller: str) -> None:
        async def delete() -> None:
            self._catalogue.may_delete_role(role_id, etag)
            write = partial(self._store.drop_role, role_id)
            await self._keep(caller, "delete role", role_id, write, e.RoleDropped(role_id=role_id))

        await self._hub.change(delete)

    async def set_alias(self, alias: Alias, caller: str) -> Alias:
        async def put() -> Alias:
            table = self._hub.registry.table
            offers = table.offers
            made = self._catalogue.set(
                alias, lambda name: name in offers.having or name in offers.services, table.found_aliases()
            )
            write = partial(self._store.put_alias, made)
            await self._keep(caller, "set alias", f"{made.alias} -> {made.target}", write, e.AliasPut(alias=made))
            return made

        return await self._hub.change(put)

    async def delete_alias(self, name: str, etag: str, caller: str) -> None:
        async def delete() -> None:
            self._catalogue.may_delete_alias(name, etag)
            write = partial(self._store.drop_alias, name)
            await self._keep(caller, "delete alias", name, write, e.AliasDropped(alias=name))

        await self._hub.change(delete)

    async def _keep(self, caller: str, action: str, target: str, write: _Write, event: Event) -> None:
        await self._hub.stored(write(Audit(at=self._hub.now().wall, caller=caller, action=action, target=target)))
        self._hub.feed(event)
