"""Generated from protos/ by scripts/generate; nothing here is edited by hand."""
