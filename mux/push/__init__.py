"""Push: brings a notice to a device that isn't connected, by the push service of that device.

Reading order: ``message`` is the content of a push; ``endpoints``, where devices are reached, and
``addresses``, the check of what they register. ``queue`` holds what waits (on disk by
``queue_writer`` and ``queue_file``). ``sender`` sends it, by one module for each service
(``services``), which call ``http_client`` and return an ``outcome``. ``key_file`` reads the
services' keys.

Of the package it may import ``storage``, ``config`` and ``core.part``.
"""
