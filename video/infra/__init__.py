"""What the other packages stand on: the toolkit of adapters and storage, statements, outages, the broker, fail points,
what follows a commit, and the database's time-outs.

Knows no table and no rule of ours. May be imported by every package of `video`.
"""
