"""The words a user types: no logic and no tensors live here."""
