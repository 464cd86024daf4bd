"""Who may connect.

``authentication`` turns an upgrade's headers into a principal or a refusal. ``devices`` are the
paired devices and their tokens, ``pairing`` is how one is added, ``requests`` answers
``mux/devices/*`` and ends the access of a device. ``throttle`` makes those wait who fail.

Imports ``storage``, ``dispatcher``, ``config`` and ``core``.
"""
