"""What models say of texts that are given: scores, words, likelihoods."""
