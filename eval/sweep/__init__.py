"""Many settings of one tracker in one compiled program."""
