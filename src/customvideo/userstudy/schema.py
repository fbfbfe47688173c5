"""The tables votes are kept in; they grow by revisions only (`customvideo.userstudy.migrations`).

Times are milliseconds since 1970 (UTC), the same in every database.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey, Integer, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = ["Base", "Comparison", "Fact", "Rater", "Vote"]


class Base(DeclarativeBase):
    """All tables of a study."""


class Rater(Base):
    """Somebody who agreed to take part; nothing about them but the secret in their link.

    Rater number n (`id`, from 1) sees block n - 1 of the design.
    """

    __tablename__ = "raters"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    token: Mapped[str] = mapped_column(String(64), unique=True)
    joined: Mapped[int] = mapped_column(BigInteger)


class Comparison(Base):
    """A pair of videos that a rater is to compare, written when they join."""

    __tablename__ = "comparisons"
    __table_args__ = (UniqueConstraint("rater", "position", name="comparison_place"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    rater: Mapped[int] = mapped_column(ForeignKey("raters.id"))
    position: Mapped[int]
    kind: Mapped[str] = mapped_column(String(16))
    item: Mapped[str] = mapped_column(String(400))
    left: Mapped[str] = mapped_column(String(200))
    right: Mapped[str] = mapped_column(String(200))
    voted: Mapped[int | None] = mapped_column(BigInteger)
    """When all its questions were answered; None until then."""
    took: Mapped[int | None] = mapped_column(BigInteger)
    """Milliseconds between the page and its answers."""


class Vote(Base):
    """The answer to one question about one comparison: "left" or "right"."""

    __tablename__ = "votes"
    __table_args__ = (UniqueConstraint("comparison", "question", name="one_vote_a_question"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    comparison: Mapped[int] = mapped_column(ForeignKey("comparisons.id"))
    question: Mapped[str] = mapped_column(String(32))
    choice: Mapped[str] = mapped_column(String(5))


class Fact(Base):
    """One thing known of the whole study: its digest, when it was closed."""

    __tablename__ = "facts"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    value: Mapped[str] = mapped_column(String(200))
