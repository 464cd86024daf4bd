"""Push: how a notice reaches a device that isn't connected, by the push service that it has.

``push`` is what is told; ``endpoints``, where to; ``queue`` (kept by ``queue_file``), what isn't
told yet; ``sender`` tells it, by one module for each service.
"""
