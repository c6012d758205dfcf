"""The faces that other programs see. They translate, and decide nothing."""
