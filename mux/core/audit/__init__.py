"""The records for the audit log: which happenings are recorded, and with what fields.

``audit_events`` has all but approvals, ``audit_approvals`` those.

May import ``state`` and what stands below it.
"""
