"""Reference models with residual, HC, mHC and mHC-lite connections: for demo, tests, benchmarks."""
