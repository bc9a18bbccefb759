"""One module for each published layout: the files as they were published in, drafts of image records out.

Records that cannot be used, or contradict others, are collected and never skipped in silence.
"""
