"""The HTTP coat: routes, schemas, limits, the error table. Nothing here computes."""
