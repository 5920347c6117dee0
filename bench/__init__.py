"""What is measured, side by side with peers in one run; never a test, and only ratios count on a shared machine."""
