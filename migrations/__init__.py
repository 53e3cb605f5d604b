"""alembic migrations of the store; see env.py."""
