"""The command line: arguments in; one stage or experiment run, its report printed, and an exit status out.

A module for each command: parse, settings, stage, render. No logic and no tensors live here.
"""
