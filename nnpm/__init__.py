"""nnpm: emotion recognition in speech that learns a new language from unlabelled audio.

In a checkout ``nnpm/service`` and ``nnpm/training`` are links to the folders of the same name; a
wheel holds the folders themselves. So everything of ours lies under one name, and somebody's own
package called ``service`` is not in the way.
"""

__version__ = "0.1.0"
