"""Rounds of training, the runs in them, and the schedules that start them."""
