"""Files of results and annotations: one reader and one writer of each."""
