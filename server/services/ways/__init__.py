"""The ways of giving feedback: comparing, ranking, writing, proposing prompts; skipping, reporting, taking back."""
