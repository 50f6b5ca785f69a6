"""Troubles that need a person, told to people: each once, and its end once.

Entry points: `watch.note`, with what is wrong now, and `send.send_due`; a thread of the sweeper calls both.
"""
