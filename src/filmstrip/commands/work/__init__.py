"""What commands do, apart from their options: imported when a command is called, so that its help does not wait."""
