"""Requests of clients, going up to the app-server.

``client_requests`` gives each its id and its turn in the schedule, and takes the answer back to
whoever asked; read it first. ``deduplication`` has a message that was sent twice run once,
``turn_interrupts`` answers interrupts of turns that are over, and ``deprecation_notices`` tells
whose request such a notice is about. ``directory_clearance`` has requests wait until it is known in
which directories they would have a thread work.

Must not import any other room of the features: all of them make requests.
"""
