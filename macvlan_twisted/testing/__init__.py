"""Fakes that ship with the product, held to the same tests as the real parts."""
