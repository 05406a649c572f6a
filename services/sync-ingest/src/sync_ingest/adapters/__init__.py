"""Feed formats. Each is one module with one `Adapter`; `registry` lists them all."""
