"""HTTP: pages and JSON. Knows rows and pages, never torch."""
