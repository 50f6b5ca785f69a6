"""Which model, account and key may run a task: catalogue and policy, slots, limits, health.

Tables: `ProviderKey`, `ProviderAccount`, `ModelSetting` (written by operators) and `Circuit`. Writes no task and no
attempt.
"""
