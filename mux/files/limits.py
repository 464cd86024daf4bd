"""The limits of uploads, each with its reason."""

from __future__ import annotations

from typing import Final

GIB: Final = 2**30
MIB: Final = 2**20

FILE_BYTES: Final = 2 * GIB
"""Most bytes of one file: a core dump, a video of some minutes."""

UNFINISHED_BYTES: Final = 10 * GIB
"""Most bytes of all unfinished uploads, as they will be: five of the largest."""

UNFINISHED: Final = 256
"""Most unfinished uploads: each is two small files, and a person starts a dozen."""

UNFINISHED_OF_DEVICE: Final = 64
"""Of these, most of one device: a whole camera roll's share sheet."""

FREE_BYTES: Final = GIB
"""Bytes of the disk that uploads leave free: the agent's own work and the broker's journal."""

UNFINISHED_SECONDS: Final = 24 * 3600.0
"""An upload that nobody went on with for so long is dropped: a night, and a phone that was off."""

FINISHED_SECONDS: Final = 3600.0
"""A client that lost the answer can ask for so long what became of its upload."""

NAME_BYTES: Final = 200
"""Most bytes of a file's name. File systems take 255; the rest is for a number in it."""

METADATA_BYTES: Final = 4096
"""Most bytes of the metadata of an upload: a name, a type, a digest, a thread."""

NAME_TRIES: Final = 1000
"""Numbers that are tried to make a name new. So many files of one name are no accident."""

FINISHED: Final = 1000
"""Finished uploads that can be asked about; more in an hour are no person's."""

SWEEP_SECONDS: Final = 3600.0
"""Time between two looks for uploads that have expired, or that nobody asks about any more."""

FREE_EVERY: Final = 16 * MIB
"""Bytes after which a writer looks again whether the disk has room: others write there, too."""
