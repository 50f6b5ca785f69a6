"""What the other packages stand on: adapters and storage as one toolkit, outages, the broker's lengths, fail points.

Knows no table and no rule of ours. May be imported by every package of `video`.
"""
