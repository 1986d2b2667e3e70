"""What all commands share: options, logging, and how a failure ends the process on every rank."""
