"""Open the state at start, or rebuild lost state from the engine and the kernel."""
