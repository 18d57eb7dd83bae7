"""Make state, kernel and engine agree: once at start, and in the background."""
