"""What a service does when something was told."""
