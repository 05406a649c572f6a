"""Running a process: its roles, leases and locks."""
