"""The operator's consent to https on the Tailnet: a file in the state directory with the name.

The consent is to one name, since the name becomes public with its first certificate. Without the
file there is no https on the Tailnet.

Used by ``https``, and by the commands where no broker runs. Blocks.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from mux.errors import AppmuxError
from mux.storage import json_file

FILE: Final = "tailnet.json"
CERTIFICATE: Final = "tailnet.pem"
"""The file of the certificate and its key (see ``certificate``)."""

VERSION: Final = 1


class ChoiceError(AppmuxError):
    """The file can't be read or written."""


def read(state_dir: Path) -> str | None:
    """Return the name that was consented to; None if https is off. Raises ``ChoiceError``."""
    path = state_dir / FILE
    document = json_file.read(path, VERSION, "a choice of the Tailnet", ChoiceError, _unreadable)
    if document is None:
        return None
    name = document.get("name")
    if not isinstance(name, str) or not name:
        raise _unreadable(path, "it names no name")
    return name


def text(name: str) -> str:
    """Return the file's text for a name."""
    return json.dumps({"version": VERSION, "name": name}) + "\n"


def write(state_dir: Path, name: str) -> None:
    """Store the consent to a name. Raises ``ChoiceError``."""
    try:
        json_file.replace(state_dir / FILE, text(name))
    except OSError as failure:
        raise ChoiceError(
            f"nothing was changed: {state_dir / FILE} can't be written ({failure.strerror})"
        ) from failure


def remove(state_dir: Path) -> None:
    """Withdraw the consent, and remove certificate and key. Raises ``ChoiceError``."""
    try:
        (state_dir / FILE).unlink(missing_ok=True)
        (state_dir / CERTIFICATE).unlink(missing_ok=True)
    except OSError as failure:
        raise ChoiceError(
            f"nothing was changed: {state_dir / FILE} can't be removed ({failure.strerror})"
        ) from failure


def _unreadable(path: Path, reason: str) -> AppmuxError:
    return ChoiceError(
        f"can't read {path}: {reason}. Remove it, and run `appmux tailnet enable` again"
    )
