"""Training: corpora, networks, recipes, adaptation, and the bundles that the service reads."""
