"""Models as directories and in memory: policies, preference models, adapters, averages, checkpoints."""
