"""What the operating system gives this process, and how to use it without surprises.

``descriptors``: how many file descriptors there may be. ``standard_streams``: stdin, stdout and
stderr, as a program may be started with. ``private_file``: files that are this user's alone.

Every shell may import it, the stdio bridge too. It imports nothing of the package but ``errors``.
"""
