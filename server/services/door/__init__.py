"""What stands between a person and the work of a campaign: membership, consent, the test, screening, checks."""
