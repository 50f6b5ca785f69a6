"""What videos cost and earn: the provider's charges and the users' credits, by day, provider, model, key, user and
outcome.

Entry points: `report.read` for pages, commands and the API; `roll_up.keep`, which the sweeper calls.
"""
