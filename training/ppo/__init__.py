"""A PPO run: its models and prompts, one iteration, one update, what is watched, and when it has collapsed."""
