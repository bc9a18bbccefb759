"""Published annotations in, WebDataset shards of one schema out, and these read by index. Nothing imports torch."""
