"""What lies in a folder or file: described for people and programs, and checked for damage."""
