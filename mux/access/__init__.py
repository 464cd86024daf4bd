"""Access: decides who may connect.

``authentication`` turns an ``Authorization`` header into a principal or a refusal, by the rules of
the settings (``auth_rules``). ``throttle`` slows those whose authentication fails. ``devices``
holds the paired devices (``device``), ``pairing`` adds one by a ticket (``tickets``; ``letters``
stand for one). ``browser_pairing`` adds a browser by its ``public_key``, and ``sessions`` has it
prove that key. ``requests`` answers ``mux/devices/*`` and ends a device's access, ``replies`` are
answers to a device's ``POST``.

Imports ``storage``, ``dispatch``, ``config`` and ``core``.
"""
