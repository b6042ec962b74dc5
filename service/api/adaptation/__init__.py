"""What POST /adapt and the routes beside it are made of."""
