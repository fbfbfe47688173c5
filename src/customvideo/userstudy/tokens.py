"""Secrets and signatures: links that nobody guesses, forms that nobody else can have made.

All of them derive from one random secret in the study's folder, so that they outlive the server.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import time
from pathlib import Path

from itsdangerous import BadSignature, URLSafeSerializer

from customvideo.errors import StudyError
from customvideo.files import storage_error

__all__ = ["SECRET", "Forged", "Keys"]

SECRET = "secret"
_BYTES = 32
_SIGNER = {"digest_method": hashlib.sha256}
_TOKEN_CHARACTERS = 22
"""128 bits and a little."""


class Forged(Exception):
    """A form that was not made for whoever sent it."""


class Keys:
    """What is signed and derived with a study's secret."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._joining = URLSafeSerializer(secret, salt="join", signer_kwargs=_SIGNER)
        self._voting = URLSafeSerializer(secret, salt="vote", signer_kwargs=_SIGNER)

    @classmethod
    def of(cls, folder: Path) -> Keys:
        """The keys of the study in `folder`; its secret is made where there is none.

        Raises:
            StudyError: the secret is damaged.
            StorageError: it cannot be written.
        """
        path = folder / SECRET
        try:
            # Made so that nobody else can read it even for a moment, and by one process alone.
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write(secrets.token_hex(_BYTES))
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError:
            pass
        except OSError as error:
            raise storage_error(error, path) from error
        try:
            secret = bytes.fromhex(path.read_text(encoding="ascii").strip())
        except (OSError, ValueError) as error:
            raise StudyError(f"'{path}' is damaged; put it back from a copy.") from error
        if len(secret) != _BYTES:
            raise StudyError(f"'{path}' is damaged; put it back from a copy.")
        return cls(secret)

    @property
    def results(self) -> str:
        """What opens the page of results."""
        return self._derived("results")

    def opens_results(self, key: str) -> bool:
        """Whether `key` does."""
        return hmac.compare_digest(key.encode("utf-8", "replace"), self.results.encode())

    def joining(self, visit: str) -> str:
        """A form by which the browser with this cookie may join, once."""
        return self._signed(self._joining, [secrets.token_hex(16), _digest(visit)])

    def joined(self, form: str, visit: str) -> str:
        """The token of the rater that the form makes: the same form, the same rater.

        Raises:
            Forged: the form is not this browser's.
        """
        nonce, owner = self._read(self._joining, form, 2)
        if not visit or not hmac.compare_digest(str(owner), _digest(visit)):
            raise Forged
        return self._derived(f"rater {nonce}")

    def voting(self, rater: int, comparison: int) -> str:
        """A form by which this rater may answer this comparison; it says when it was made."""
        return self._signed(self._voting, [rater, comparison, _milliseconds()])

    def voted(self, form: str, rater: int) -> tuple[int, int]:
        """Which comparison the rater's form is about, and how many milliseconds it is old.

        Raises:
            Forged: the form is not this rater's.
        """
        owner, comparison, made = self._read(self._voting, form, 3)
        if owner != rater:
            raise Forged
        return int(comparison), max(0, _milliseconds() - int(made))

    def _derived(self, purpose: str) -> str:
        digest = hmac.digest(self._secret, purpose.encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).decode()[:_TOKEN_CHARACTERS]

    @staticmethod
    def _signed(serializer: URLSafeSerializer, told: list[object]) -> str:
        return str(serializer.dumps(told))

    @staticmethod
    def _read(serializer: URLSafeSerializer, form: str, size: int) -> list[int | str]:
        try:
            told = serializer.loads(form)
        except (BadSignature, UnicodeError) as error:
            raise Forged from error
        if not isinstance(told, list) or len(told) != size:
            raise Forged
        return told


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000
