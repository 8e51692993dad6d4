"""What a margin or an energy is compared with: bounds, tables, closed forms. Knows numpy; does not know torch."""
