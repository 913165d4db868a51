"""Reports of mhc-diag: HTML, figures, Markdown, terminal tables. Knows records, never a model."""
