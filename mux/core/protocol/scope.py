"""The names of the scopes: what a client may be allowed to do."""

from __future__ import annotations

from typing import Literal

Scope = Literal["observe", "approve", "drive", "admin"]
