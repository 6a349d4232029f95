"""Where cycles, tables, events, datasets and arrays are kept: JSON and bytes, never pickle."""
