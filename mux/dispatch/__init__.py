"""The way between the shells and the core.

``dispatcher`` is the only caller of the core: an event in, its commands carried out at once.
``shells`` is the record of what it carries them out with. ``outbox`` has the bytes owed to one
peer: append now, write in batches.

Imports ``core``; the shells import it.
"""
