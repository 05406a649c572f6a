"""Personal data under keys of their subjects, and the tokens of callers."""
