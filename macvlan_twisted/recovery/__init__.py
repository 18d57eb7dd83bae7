"""State that was lost is rebuilt at start, of what the engine and the kernel know."""
