"""The training package: corpora, networks, recipes, and the bundles that the service reads."""
