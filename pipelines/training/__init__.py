"""Settings and shards in; a checkpoint folder, its log and the state to continue from out."""
