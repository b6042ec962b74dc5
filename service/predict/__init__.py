"""The application that HTTP and ``nnpm predict`` share: one recording to one answer."""
