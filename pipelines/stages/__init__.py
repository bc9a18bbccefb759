"""One module for each command: settings and artifacts in, a `StageResult` with its artifact and report out.

Finished work is recognized by its fingerprint and not done again.

Stages do not import each other, and load torch only when there is work to do.
"""
