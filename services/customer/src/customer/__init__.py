"""The customer context: customers, their accounts and the asset panorama."""
