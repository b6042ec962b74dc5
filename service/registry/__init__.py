"""Names and versions of bundles, and the ones that are loaded."""
