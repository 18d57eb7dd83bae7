"""Docker Engine's own API, asked in the background only: inside a call it would deadlock the engine."""
