"""Access: decides who may connect.

``authentication`` turns an ``Authorization`` header into a principal or a refusal, by the rules of
the settings (``auth_rules``). ``devices`` holds the paired devices (``device``), ``pairing`` adds
one, ``requests`` answers ``mux/devices/*`` and ends a device's access. ``throttle`` slows those
whose authentication fails.

Imports ``storage``, ``dispatcher``, ``config`` and ``core``.
"""
