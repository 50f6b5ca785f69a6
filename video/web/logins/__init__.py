"""Logins: whose password is looked at and when, the sessions that are made, and what ends them.

The only writer of `LoginSession`, `LoginThrottle` and `RecoveryCode`.
"""
