"""A state directory that an earlier version made (`make.py`), and what that version said of it.

`state/` and `facts.json` are of commit 34118ce, before the folders: for it the imports of `make.py`
were those of that time, and no device book had a copy yet.
"""
