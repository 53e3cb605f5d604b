"""What follows when roles or aliases change: the table gets them, and who watches them is told."""

from collections.abc import Callable

from geniehive_control.core import events as e
from geniehive_control.core.catalogue import Catalogue
from geniehive_control.core.effects import Changed, Effect, Note
from geniehive_control.core.events import Now
from geniehive_control.core.records import Stored
from geniehive_control.core.table import Table


class Profiles:
    def __init__(self, stored: Stored, table: Table) -> None:
        self.catalogue = Catalogue(stored.roles, stored.aliases)
        self._table = table
        table.set_profiles(self.catalogue.roles, self.catalogue.aliases)

    def role_put(self, event: e.RolePut, now: Now) -> list[Effect]:
        return self._change(lambda: self.catalogue.put_role(event.role))

    def role_dropped(self, event: e.RoleDropped, now: Now) -> list[Effect]:
        return self._change(lambda: self.catalogue.drop_role(event.role_id))

    def alias_put(self, event: e.AliasPut, now: Now) -> list[Effect]:
        return self._change(lambda: self.catalogue.put_alias(event.alias))

    def alias_dropped(self, event: e.AliasDropped, now: Now) -> list[Effect]:
        return self._change(lambda: self.catalogue.drop_alias(event.alias))

    def catalogue_read(self, event: e.CatalogueRead, now: Now) -> list[Effect]:
        text = f"{event.file} has {len(event.roles)} roles and {len(event.aliases)} aliases, which are in force"
        taken = self._change(lambda: self.catalogue.take_file(event.file, event.roles, event.aliases))
        return [Note(text=text), *taken]

    def catalogue_refused(self, event: e.CatalogueRefused, now: Now) -> list[Effect]:
        self.catalogue.refuse_file(event.fault)
        text = f"the catalogue is refused as a whole, and what it said before stays in force: {event.fault}"
        return [Note(text=text, grave=True), Changed(cluster=True)]

    def _change(self, change: Callable[[], None]) -> list[Effect]:
        roles, aliases, warnings = self.catalogue.roles, self.catalogue.aliases, self.catalogue.warnings
        change()
        now = self.catalogue
        changed = Changed(
            roles=frozenset(n for n in roles.keys() | now.roles.keys() if roles.get(n) != now.roles.get(n)),
            aliases=frozenset(n for n in aliases.keys() | now.aliases.keys() if aliases.get(n) != now.aliases.get(n)),
            cluster=True,
        )
        if changed.roles or changed.aliases:
            self._table.set_profiles(now.roles, now.aliases)
        return [changed, *(Note(text=text, grave=True) for text in now.warnings if text not in warnings)]
