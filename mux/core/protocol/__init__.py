"""The app-server's language: pure functions over JSON text.

Read ``methods`` first: THE TABLE, which says what each method means to the broker. ``jsonrpc`` is
the envelope. ``answers`` says what a valid answer to each server request looks like,
``experimental`` what needs ``experimentalApi``. ``journal_entry`` is an entry and how deltas merge,
``turn_messages`` has turn messages that the broker writes itself, ``thread_settings`` what a thread
is loaded with.

Imports nothing else of the package.
"""
