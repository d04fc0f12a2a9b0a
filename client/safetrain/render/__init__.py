"""How things look: JSON, tables, lines, the preflight sheet, the live view."""
