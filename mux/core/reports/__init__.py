"""Reports for operators, read from the broker: no event passes here.

``status_report`` is the core's part of ``mux/status``, ``figures`` its part of the metrics.

May import ``broker`` and what stands below it.
"""
