"""The protocol core: no Django, no sockets, no clock, no randomness (they come in as effects)."""
