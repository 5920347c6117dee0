"""The starter model: the small world it speaks of, its corpus, its weights, and the script that makes them."""
