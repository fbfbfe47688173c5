"""What Alembic runs to migrate: it uses the connection that `upgrade` gives, and no logging set-up.

Alembic runs this file as the module `env_py`; importing it as a part of the package does nothing.
"""

from __future__ import annotations

from alembic import context

from customvideo.userstudy.schema import Base


def _run() -> None:
    connection = context.config.attributes["connection"]
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


if __name__ == "env_py":
    _run()
