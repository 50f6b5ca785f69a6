"""What `manage.py seed_demo` makes: users, thirty days of history, and what goes on now. Only while simulating.

Entry point: `seeding.seed`. The history is rows with times in the past, which no moves of a task could write; so
`history` is the one module beside the engine, the attempts and the ledger that inserts such rows. What goes on now is
made through the running system.
"""
