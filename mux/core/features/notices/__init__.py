"""Notices: what deserves a person's attention.

``notices`` raises and ends them; read it first. ``notice_triggers`` says which events deserve one,
``notice_sources`` reads the notifications that they come from, and ``notice_escalation`` says which
devices a notice is sent to, and when to more of them. The wording is ``mux/notices``'.

Of the features it may import ``approvals`` and ``clients``.
"""
