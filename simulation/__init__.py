"""The simulated crowd and its hidden judge: they meet the server over HTTP only, and nothing else may import them."""
