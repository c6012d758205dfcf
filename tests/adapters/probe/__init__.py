"""The probe against services that keep the contract, and against those that do not."""
