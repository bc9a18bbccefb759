"""Checkpoints on the Hugging Face hub: what names mean, downloads into the hub's cache on this machine, uploads.

The library `huggingface_hub` does the work, and with it its environment variables hold: HF_HOME, HF_HUB_CACHE,
HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE. What is in the cache is used where the hub cannot be
reached. Several processes of a machine may download at a time: the library's file locks let one of them do it.
"""
