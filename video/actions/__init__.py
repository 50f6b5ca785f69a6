"""What users and operators do to a task: create, cancel, retry; and selecting the tasks of a command.

Tables: `VideoTask`, in the one transaction of each action, beside its `TaskEvent` and its credits.
"""
