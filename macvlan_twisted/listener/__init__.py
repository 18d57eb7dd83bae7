"""The UNIX socket, or any other endpoint, on which Docker Engine calls the plugin."""
