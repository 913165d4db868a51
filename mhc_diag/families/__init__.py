"""The mathematics of hyper-connections, as pure functions on arrays of any library."""
