"""What is said of models once they are trained: accuracy and calibration, and policies against each other."""
