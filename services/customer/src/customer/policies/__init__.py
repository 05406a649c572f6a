"""What this context does when others tell something; never replayed."""
