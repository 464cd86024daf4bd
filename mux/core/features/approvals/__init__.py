"""Requests of the app-server, coming down: approvals, and questions to people or programs.

``server_requests`` offers each to the clients that may answer, and takes the answer up; read it
first. ``voting`` says which answer decides, ``approval_answers`` takes those that come another way,
``resolutions`` ends requests that nobody answered, and ``outcomes`` says what became of each. What
a person judges by: ``approval_list``, ``approval_view``, ``approval_items``.

Of the features it may import ``clients`` and ``history``.
"""
