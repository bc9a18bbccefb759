"""A web server around a grounding network: a page and a JSON API, which is all that the page uses.

A request's image and expressions go through the network once. Their raw outputs are kept for a while, and are
post-processed again whenever a setting changes.
"""
