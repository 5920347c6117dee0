"""What a run learns from or answers, read from data/ and turned into tokens and batches."""
