"""Published annotation → record → shard → example, without torch."""
