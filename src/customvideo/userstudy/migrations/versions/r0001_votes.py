"""Raters, the comparisons they are shown, and their votes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the three tables."""
    op.create_table(
        "raters",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("token", sa.String(64), nullable=False, unique=True),
        sa.Column("joined", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "comparisons",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("rater", sa.Integer, sa.ForeignKey("raters.id"), nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("item", sa.String(400), nullable=False),
        sa.Column("left", sa.String(200), nullable=False),
        sa.Column("right", sa.String(200), nullable=False),
        sa.Column("voted", sa.BigInteger),
        sa.Column("took", sa.BigInteger),
        sa.UniqueConstraint("rater", "position", name="comparison_place"),
    )
    op.create_table(
        "votes",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("comparison", sa.Integer, sa.ForeignKey("comparisons.id"), nullable=False),
        sa.Column("question", sa.String(32), nullable=False),
        sa.Column("choice", sa.String(5), nullable=False),
        sa.UniqueConstraint("comparison", "question", name="one_vote_a_question"),
    )


def downgrade() -> None:
    """Nothing goes back: votes are not thrown away."""
    raise NotImplementedError("a study's database is not taken back; keep a copy instead")
