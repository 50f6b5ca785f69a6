"""The ledger: grants, debits, refunds and balances, and the check that they agree.

Tables: `Account` and `CreditEntry`. Only this package writes them; entries are never changed or deleted.
"""
