"""OSTrack (2022): one transformer over template and search tokens."""
