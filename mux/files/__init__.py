"""Files that go from a person's device to a thread, and back, outside of the JSON channel.

Read ``uploads`` first: what an unfinished upload is, and its way until it lies in a thread's
directory. ``spool`` keeps unfinished ones on disk, so that they survive the broker. ``placing``
gives a whole file its place, ``writer`` writes one; ``errors`` have HTTP's status. ``names`` makes
a stranger's file name harmless. ``downloads`` lets files out. ``beneath`` opens paths without
following links, ``limits`` has the bounds.

HTTP is ``mux.web``'s. This folder imports ``core`` and ``posix``, never downstream or web.
"""
