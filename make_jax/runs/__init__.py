"""Where a run lives: mesh and sharding rules, train state, checkpoints."""
