"""Writing replies: choosing tokens, the engine, rollouts, and every policy that answers behind one interface."""
