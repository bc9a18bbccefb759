"""One module for each command: settings and artifacts in, an artifact out, made once and recognized afterwards.

Stages do not import each other, and load torch only when there is work to do.
"""
