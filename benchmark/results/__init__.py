"""What the runs hold: read once, checked once; tables and reports are functions of it. No torch."""
