"""Where a job computes and in how many processes: device and precision, ranks, sums over processes, shards."""
