"""From settings and shards to a checkpoint folder, a log, and the state to resume from."""
