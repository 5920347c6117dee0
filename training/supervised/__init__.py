"""Supervised updates: the frame that all jobs without PPO share, a preference lesson, a cached teacher, which model is kept."""
