"""Benchmarks: what the broker costs and what it saves. They measure and print, they test nothing.

``fanout`` is the whole way with the real app-server, ``core`` the decision alone, ``store`` the
journal on disk alone, ``journal`` what the journal costs the whole broker, and a catch-up from it.
``load`` is the subscribers that they measure with, ``firehose`` an app-server that doesn't wait for
a model, ``unjournaled`` a broker that keeps nothing.
"""
