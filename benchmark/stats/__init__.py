"""Pure mathematics on numbers: intervals, claims, power. It reads no disk."""
