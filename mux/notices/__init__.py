"""Notices: how they are worded and recorded, what each device wants, and answers from a device.

Reading order: ``delivery`` turns the core's decisions into pushes, in the words of ``wording``.
``ledger`` is the history of decisions, ``preferences`` holds each device's rules. ``requests``
answers ``mux/notices/*`` and ``mux/push/*``. ``answer_tickets`` and ``lock_screen`` let a device
answer an approval from its lock screen.

``mux.core.features.notices`` decides what deserves a notice; ``mux.push`` brings it to a device.
"""
