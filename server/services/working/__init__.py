"""What work is made of, whatever its way: the instructions shown, the lease, the draft, the time, and what every answer comes with."""
