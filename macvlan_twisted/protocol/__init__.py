"""What Docker Engine says: the Klein tree, the messages and the error table."""
