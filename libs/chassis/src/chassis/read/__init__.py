"""The read side: views, their documents and checkpoints, generations and rebuilding."""
