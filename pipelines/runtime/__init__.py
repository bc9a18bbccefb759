"""How work runs on this machine: the processes of a launch, signals, the arithmetic of a device, and memory."""
