"""What all commands share: arguments and options, logging, and how a failure ends the process on every rank."""
