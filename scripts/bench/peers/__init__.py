"""Other programs that do a like job."""
