"""Fetching a file of unknown origin, and posting to an address from outside: addresses that may be asked, redirects,
limits of size and time.
"""
