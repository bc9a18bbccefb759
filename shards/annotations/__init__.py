"""Published annotation files → drafts of image records: one module for each layout.

Records that cannot be used, or contradict others, are collected and never skipped in silence.
"""
