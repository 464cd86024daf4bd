"""Subscriptions: who follows which thread, and what a client is given that joins or comes back.

``subscriptions`` lets clients join threads and leave them; read it first. ``local_resume`` answers
a join that needs no word of the app-server. ``replay`` gives a client that lagged or came back what
it missed.

Of the features it may import ``approvals`` and ``requests``.
"""
