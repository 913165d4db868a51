"""The command line of mhc-diag: reads options, calls the library, prints. No arithmetic."""
