"""Who did what to the system.

Entry point: `records.record`, in the transaction of the act.
"""
