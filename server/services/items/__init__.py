"""What there is to be judged: items that people bring, prompts of a pool, and openings that are sampled ahead."""
