"""Commands that show what goes on and what waits, and answer that.

``status`` shows what waits for a person, and who does what; ``approvals`` lists what waits and
answers it. ``audit`` prints and checks the audit log.

Of ``mux/cli`` it may import ``common``, ``terminal`` and ``completion``.
"""
