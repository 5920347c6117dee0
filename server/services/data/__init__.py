"""What has come in, read: selections, counts, agreement, wins, transcripts, and the frozen versions that rounds learn from."""
