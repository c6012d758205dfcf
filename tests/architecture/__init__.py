"""What the code as a whole must look like."""
