"""The machine a command runs on: devices, processes, progress, tracking."""
