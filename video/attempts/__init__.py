"""One attempt at one provider: what is known of it, how it is asked about, and how the open ones are settled.

Table: `Generation`. Only this package writes it, each fact by compare-and-set on the attempt's own state; facts are
written even by a worker that lost its task.
"""
