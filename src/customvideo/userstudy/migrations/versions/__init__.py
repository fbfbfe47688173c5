"""The revisions, each a file that Alembic runs; their order is in them, not in their names."""
