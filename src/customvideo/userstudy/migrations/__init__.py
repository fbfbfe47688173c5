"""How a study's database comes from any earlier form to today's: Alembic's revisions, packaged.

`upgrade` is all that others call; a new revision is one more file in `versions`, and a released one
is never changed.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

__all__ = ["upgrade"]


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the database to `revision`, inside the connection's own transaction."""
    config = Config()
    # A per cent sign in the path would be read as the start of a placeholder.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
