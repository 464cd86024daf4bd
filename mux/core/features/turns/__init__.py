"""Turns that don't begin at once, or that are run once for all.

``turn_queue`` keeps turns until their thread is idle; ``queue_requests`` shows and changes what
waits there. ``shared_titles`` has one title turn do for all clients of a thread.

Of the features it may import ``lifecycle`` and ``requests``.
"""
