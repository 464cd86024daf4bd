"""The turns: those that run, and those that wait.

``running_turn`` has all that a turn has streamed so far, its deltas in a ``delta_stream``.
``turn_queues`` are those that wait until their thread is idle, ``title_turns`` those that make a
title for a thread.

Of ``core/state`` it may import ``requests``.
"""
