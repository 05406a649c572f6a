"""Feed formats. Each is one module with one `Adapter`; `registry` knows them all."""
