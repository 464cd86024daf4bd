"""The handover: a broker goes on where an earlier one ended.

``durability`` saves, at the end of each event, the facts that it changed. ``handover`` reads them
back, and goes on with the app-server that still runs.

Of the features it may import ``approvals``, ``lifecycle``, ``requests`` and ``turns``.
"""
