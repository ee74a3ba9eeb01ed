"""In place of the package of this name, which Google Colab imports before the first cell."""
