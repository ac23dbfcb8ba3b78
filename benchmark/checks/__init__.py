"""Does a record hold: its files looked at, trained again by the code that is here, or made as it was made. No torch."""
