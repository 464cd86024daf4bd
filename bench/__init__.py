"""Benchmarks: what the broker costs and what it saves. They measure and print, they test nothing.

``fanout`` is the whole way with the real app-server, ``core`` the decision alone; ``load`` is the
subscribers that ``fanout`` measures with.
"""
