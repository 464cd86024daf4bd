"""The app-server's language: pure functions over JSON text.

Read ``methods`` first: THE TABLE, what each method means to the broker. ``jsonrpc`` is the
envelope; ``answers``, what a valid answer to each server request looks like; ``experimental``,
what needs ``experimentalApi``; ``journal_entry``, an entry and how deltas merge;
``turn_messages``, turn messages that the broker writes itself; ``thread_settings``, what a thread
is loaded with.

Imports nothing else of the package.
"""
