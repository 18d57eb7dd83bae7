"""What a network and an endpoint are, and what each call does to them."""
