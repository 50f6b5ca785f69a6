"""What runs: the Celery tasks, the sweeper with its periodic jobs, and what a worker does about itself.

Table: `PeriodicRun`. Holds no rules: each entry point calls the packages below.
"""
