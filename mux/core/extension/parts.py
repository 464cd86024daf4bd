"""The parts of a description of the extension: each part of a message, by an example of it.

An example is an instance of the class that describes the part, so it can't be of another shape;
the class gives the JSON Schema. Nothing here is on a message's way.
"""

from __future__ import annotations

import msgspec


class Described(msgspec.Struct, frozen=True):
    """The description of a method, notification or shape.

    ``about``: one sentence. ``parts``: examples by name.
    """

    about: str
    parts: dict[str, msgspec.Struct]


class Nothing(msgspec.Struct):
    """No fields. Fields that are sent nevertheless are ignored."""


class Done(msgspec.Struct):
    """Success, without any fields."""


def method(about: str, params: msgspec.Struct, result: msgspec.Struct) -> Described:
    """A ``mux/*`` request, by an example of its params and one of its result."""
    return Described(about, {"params": params, "result": result})


def notification(about: str, params: msgspec.Struct) -> Described:
    """A ``mux/*`` notification, by an example of its params."""
    return Described(about, {"params": params})
