"""The customer's own rules: pure, without I/O, clock or framework."""
