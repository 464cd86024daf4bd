"""Sockets, before a byte of HTTP.

``streams`` wraps a listening socket and those that it accepts; ``unix_socket`` claims a path, in a
``socket_directory``; ``peer`` is the process at the far end of one. ``tls`` holds the certificate.
``unauthenticated`` limits the connections that haven't said who they are.

Of ``mux/downstream`` it imports nothing.
"""
