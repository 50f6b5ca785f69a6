"""What the simulator knows: jobs, accounts, faults, call-backs and clips."""
