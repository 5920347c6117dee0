"""The ledger, appeals, and payrolls."""
