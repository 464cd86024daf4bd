"""The pure core: events in, commands out. No trio, no clock, no randomness, no files, no logs."""
