"""Notices: what was told to whom and why, what each device wants, and the words of it.

Start reading at ``delivery``. What deserves a notice is decided in ``mux.core.features.notices``;
how it gets to a device is ``mux.push``'s.
"""
