"""What a person does to a task: create, cancel, retry, and choosing which tasks a command is about.

Tables: `VideoTask`, in the one transaction of each action, beside its `TaskEvent` and its credits.
"""
