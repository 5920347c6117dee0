"""Studies at panels: who comes from one, how their submission stands, what the panel tells us."""
