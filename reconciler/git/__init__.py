"""Every git child process starts here."""
