"""Fetching a file of unknown origin: addresses that may be asked, redirects, limits of size and time."""
