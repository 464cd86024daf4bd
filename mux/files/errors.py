"""Errors of uploads, each with HTTP's status for it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from mux.errors import AppmuxError

NO_ROOM: Final = HTTPStatus.INSUFFICIENT_STORAGE
TOO_MUCH: Final = HTTPStatus.REQUEST_ENTITY_TOO_LARGE

CHECKSUM_MISMATCH: Final = 460
"""The tus protocol's own status."""


class UploadError(AppmuxError):
    """An upload, or a part of one, isn't taken; ``status`` is HTTP's."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
