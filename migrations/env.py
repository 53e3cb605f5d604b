"""Runs migrations within a transaction that control opened; see geniehive_control.store.migrate."""

from alembic import context

from geniehive_control.store.tables import metadata

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("migrations are run by control itself when it starts; there is nothing to call by hand")

context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, compare_type=True)
context.run_migrations()
