"""Helpers around what the operating system gives this process.

``descriptors`` sets the limit on file descriptors. ``standard_streams`` handles stdin, stdout and
stderr as a program may be started with them. ``private_file`` opens files that are this user's
alone. ``notify_socket`` tells systemd a service's state.

Every shell may import it, the stdio bridge too. It imports nothing of the package but ``errors``.
"""
